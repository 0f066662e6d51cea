"""Which claims come back, by a table; the counts; and what the JSON file keeps."""

from __future__ import annotations

import json
from typing import Any

import pytest

from musicflamingo_cli.listening.round_trip import Result, RoundTrip, count_by_preset, returned_claims

BACK, LOST, UNKNOWN = Result.CAME_BACK, Result.LOST, Result.UNKNOWN


@pytest.mark.parametrize(
    ("caption", "found", "again", "expected"),
    [
        ("House at 120 BPM.", (123, None), "", {"120": BACK}),  # within 4 %
        ("House at 120 BPM.", (126, None), "", {"120": LOST}),
        ("House at 120 BPM.", (60.5, None), "", {"120": BACK}),  # an octave
        ("House at 120 BPM.", (243, None), "", {"120": BACK}),
        ("House at 120 BPM.", (180, None), "", {"120": LOST}),  # no octave
        ("House at 118-124 BPM.", (126, None), "", {"118-124": BACK}),
        ("House at 120 BPM.", (126, None), "House at 120 BPM.", {"120": LOST}),  # a sure measurement decides
        ("House at 120 BPM.", (None, None), "House at 60 BPM.", {"120": BACK}),
        ("House at 120 BPM.", (None, None), "Fast house.", {"120": UNKNOWN}),
        ("A song in C# minor.", (None, "C# minor"), "", {"C# minor": BACK}),
        ("A song in Db minor.", (None, "C# minor"), "", {"Db minor": BACK}),
        ("A song in C major.", (None, "A minor"), "", {"C major": LOST}),
        ("A song in C major.", (None, None), "A song in C major.", {"C major": BACK}),
        ("Piano and drums.", (100, None), "A piano piece.", {"piano": BACK, "drums": LOST}),
        ("Piano and drums.", (100, None), "", {"piano": UNKNOWN, "drums": UNKNOWN}),
        ("Piano.", (None, None), "There is no piano.", {"piano": LOST}),
        ("Calm and sad.", (100, None), "Piano.", {}),  # moods are not compared
    ],
)
def test_claims_come_back_or_not(
    caption: str, found: tuple[float | None, str | None], again: str, expected: dict[str, Result]
) -> None:
    assert {each.value: each.result for each in returned_claims(caption, *found, again)} == expected


def test_a_related_key_is_named() -> None:
    (claim,) = returned_claims("A song in C major.", None, "A minor", "")
    assert claim.detail == "measured A minor, a related key"


def trip(caption: str, again: str, bpm: float | None = None) -> tuple[str, RoundTrip]:
    claims = tuple(returned_claims(caption, bpm, None, again))
    return caption, RoundTrip("tiny", "full", again, bpm=bpm, claims=claims)


def test_the_preset_that_carries_most_comes_first() -> None:
    counts = count_by_preset(
        [
            ("brief", *trip("Piano.", "Piano.")),
            ("full", *trip("Piano and drums at 120 BPM.", "Piano and drums.")),
            ("full", *trip("Piano and bass at 120 BPM.", "Piano.", bpm=120)),
        ]
    )
    assert [(each.preset, each.clips, str(each.total)) for each in counts] == [
        ("full", 2, "4 of 5, 1 unknown"),
        ("brief", 1, "1 of 1"),
    ]
    assert [str(count) for count in counts[0].fields.values()] == ["1 of 1, 1 unknown", "—", "3 of 4"]
    assert counts[0].as_json()["share"] == 0.8
    # By chance: piano twice and 120 BPM once; no bass in the first clip, no drums in the second.
    assert str(counts[0].chance) == "3 of 5, 1 unknown"
    assert str(counts[1].chance) == "—"


def test_json_gives_back_the_same_and_nothing_else() -> None:
    _, made = trip("Piano and drums at 120 BPM in C major.", "Piano.", bpm=120)
    assert RoundTrip.from_json(json.loads(json.dumps(made.as_json()))) == made
    wrong: list[Any] = [None, [], {}, {"claims": 3}, {"claims": [{"field": "x"}]}, {**made.as_json(), "more": 1}]
    for value in wrong:
        assert RoundTrip.from_json(value) is None
