"""Which captions are examples, and how the tracks are divided."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from musicflamingo_cli.errors import ConfigError
from musicflamingo_cli.exports.rows import VALIDATION, ExportOptions, ExportStats, rows_of
from musicflamingo_cli.finetuning.examples import Choice, collect
from musicflamingo_cli.finetuning.plan import Example, Plan, Split, TrackPlan, TrainingSettings
from musicflamingo_cli.paths import built_in_prompts
from musicflamingo_cli.prompts import Preset, choose, load_presets
from musicflamingo_cli.types import Excerpt
from tests.conftest import MakeWav

PRESETS = choose(load_presets([built_in_prompts()]), [])
EDITED = {"full": {"edited": True}}
TINY = {"full": {"toy": True}, "brief": {"toy": True}}
CAPTION = "A slow waltz with a reed organ."


@pytest.fixture
def dataset(tmp_path: Path, make_wav: MakeWav) -> Path:
    """Three approved tracks, among them one that is excluded, and one that nobody looked at."""
    for number in range(4):
        write(make_wav(f"data/{number}.wav", seconds=1.0 + number / 10), music_flamingo_approved=number != 3)
    write(make_wav("data/excluded.wav", seconds=2.0), music_flamingo_approved=True, music_flamingo_excluded=True)
    return tmp_path / "data"


def write(audio: Path, caption: str = CAPTION, **more: Any) -> None:
    audio.with_suffix(".INFO").write_text(json.dumps({"music_flamingo_full": caption, **more}), encoding="utf-8")


def choice(**changes: Any) -> Choice:
    return Choice(**{"presets": PRESETS, "validation": 0.3, **changes})


def test_approved_captions_are_examples(dataset: Path) -> None:
    found = collect([dataset], choice())
    assert [track.name for track in found.tracks] == ["0.wav", "1.wav", "2.wav"]
    assert {example.preset for example in found.examples} == {"full"}
    assert found.examples[0].answer == CAPTION
    assert found.examples[0].question == next(each for each in PRESETS if each.name == "full").prompt
    assert found.left_out == {"no approved caption": 2}
    assert {track.split for track in found.tracks} == set(Split)


@pytest.mark.parametrize(
    ("info", "changes", "expected"),
    [
        ({"music_flamingo_approved": True}, {}, True),
        ({"music_flamingo_provenance": {"full": {"approved": True}}}, {}, True),
        ({"music_flamingo_provenance": EDITED}, {}, True),
        ({}, {}, False),
        ({}, {"takes_all": True}, True),
        ({"music_flamingo_provenance": TINY}, {"takes_all": True}, False),
        ({"music_flamingo_provenance": TINY, "music_flamingo_approved": True}, {}, False),
        ({"music_flamingo_provenance": TINY, "music_flamingo_approved": True}, {"takes_tiny": True}, True),
        ({"music_flamingo_provenance": {"full": {"toy": True, "edited": True}}}, {}, True),
        ({"music_flamingo_approved": True, "music_flamingo_full": " "}, {}, False),
        ({"music_flamingo_approved": True, "music_flamingo_full": "\udc80"}, {}, False),
        ({"music_flamingo_approved": True, "music_flamingo_full": 7}, {}, False),
    ],
)
def test_which_captions_count(info: dict[str, Any], changes: dict[str, Any], expected: bool) -> None:
    assert choice(**changes).takes({"music_flamingo_full": CAPTION, **info}, "full") is expected


def test_the_split_is_that_of_the_exports(tmp_path: Path, make_wav: MakeWav) -> None:
    for number in range(20):
        write(make_wav(f"data/album {number % 3}/{number}.wav", seconds=0.6), music_flamingo_approved=True)
    found = collect([tmp_path / "data"], choice())
    options = ExportOptions(weights={"full": 1.0}, columns=[], validation=0.3)
    exported = {str(row.path): row.split for row in rows_of(tmp_path / "data", options, ExportStats())}
    assert {track.name: track.split == Split.VALIDATION for track in found.tracks} == {
        name: split == VALIDATION for name, split in exported.items()
    }
    assert 1 < found.count(Split.VALIDATION) < 15


def test_too_few_captions_are_one_error_each(dataset: Path) -> None:
    for file in dataset.glob("*.INFO"):
        data = json.loads(file.read_text(encoding="utf-8"))
        file.write_text(json.dumps({**data, "music_flamingo_approved": file.stem == "1"}), encoding="utf-8")
    with pytest.raises(ConfigError, match="only one track") as caught:
        collect([dataset], choice())
    assert "musicflamingo review" in caught.value.hint
    (dataset / "1.INFO").unlink()
    with pytest.raises(ConfigError, match="no captions that a person approved") as caught:
        collect([dataset], choice())
    assert "--all" in caught.value.hint
    for file in dataset.glob("*.INFO"):
        file.unlink()
    with pytest.raises(ConfigError, match="no captions of a real model"):
        collect([dataset], choice(takes_all=True))


def test_a_track_whose_prompt_lacks_a_value_is_none_to_train_on(dataset: Path) -> None:
    """Else it could be all of the validation, which would end in an error after the first epoch."""
    presets = [Preset("full", "Describe this track by {artist}.")]
    write(dataset / "1.wav", music_flamingo_approved=True, artist="Nina")
    with pytest.raises(ConfigError, match="only one track"):
        collect([dataset], choice(presets=presets))


def test_an_unreadable_track_does_not_stop_the_others(dataset: Path, caplog: pytest.LogCaptureFixture) -> None:
    (dataset / "0.INFO").write_text("{", encoding="utf-8")
    found = collect([dataset], choice())
    assert [track.name for track in found.tracks] == ["1.wav", "2.wav"]
    assert found.left_out["unreadable"] == 1
    assert "0.wav" in caplog.text


plans = st.builds(
    Plan,
    model=st.just("folder"),
    identity=st.text(max_size=8),
    tracks=st.lists(
        st.builds(
            TrackPlan,
            path=st.text(max_size=5),
            name=st.text(max_size=5),
            dataset=st.just("data"),
            audio=st.just("0"),
            split=st.sampled_from(Split),
        ),
        min_size=1,
        max_size=3,
    ),
    examples=st.lists(
        st.builds(
            Example,
            track=st.just(0),
            preset=st.just("full"),
            question=st.text(max_size=9),
            system=st.just(""),
            answer=st.text(max_size=9),
        ),
        max_size=3,
    ),
    settings=st.builds(TrainingSettings, rate=st.floats(1e-6, 1e-3), rank=st.integers(1, 9)),
    excerpt=st.builds(Excerpt, max_seconds=st.floats(1, 1200)),
    threads=st.none() | st.integers(1, 4),
)


@settings(max_examples=40)
@given(plan=plans)
def test_a_plan_survives_its_file(plan: Plan, tmp_path_factory: pytest.TempPathFactory) -> None:
    file = tmp_path_factory.getbasetemp() / "plan.json"
    plan.write(file)
    again = Plan.read(file)
    assert again == plan
    assert again.digest == plan.digest
