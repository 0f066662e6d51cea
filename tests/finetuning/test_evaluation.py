"""Whether an adapter is better: claims kept, lost and gained, and words of the approved captions."""

from __future__ import annotations

from pathlib import Path

import pytest

from musicflamingo_cli.captioning.comparison import PresetComparison, Side, SideCaption, TrackComparison
from musicflamingo_cli.config import Settings
from musicflamingo_cli.errors import ConfigError, FailureKind
from musicflamingo_cli.finetuning.evaluation import Approved, Evaluation, Kind, evaluate, validation_tracks
from musicflamingo_cli.models.model import Adapter
from musicflamingo_cli.prompts import Preset
from musicflamingo_cli.report.adapter_section import evaluation_lines, evaluation_section
from musicflamingo_cli.report.comparison_page import render
from musicflamingo_cli.types import Failure, Track
from tests.conftest import MakeWav
from tests.fakes.engines import TINY_PAIR

FULL = Preset("full", "Describe it.")
APPROVED = "A house track at 120 BPM in C major with a reed organ and drums."
KEEPS = "House at 120 BPM in C major: a reed organ and drums."
OLD = "House at 120 BPM in C major: an organ and drums."
WORSE = "Techno at 140 BPM in C major: a reed organ and drums."


def adapter(base: float = 0.4, best: float = 0.2, held_out: tuple[str, ...] = ()) -> Adapter:
    record = {
        "base": {"name": "x", "tiny": False},
        "loss": {"base": base, "best": best},
        "tracks": {"train": [], "validation": list(held_out)},
    }
    return Adapter(folder=Path("mine"), name="mine", base="x", fingerprint="0", has_projector=False, record=record)


def evaluated(base: str, adapted: str, times: int = 2, of: Adapter | None = None) -> Evaluation:
    side = Side("native", TINY_PAIR, Settings())
    captions = tuple(
        SideCaption(side=side, text=text)
        if text
        else SideCaption(side=side, failure=Failure(preset="full", kind=FailureKind.TIMEOUT, reason="late"))
        for text in (base, adapted)
    )
    compared = [TrackComparison(Path(f"{number}.wav"), {"full": PresetComparison(captions)}) for number in range(times)]
    approved = [
        Approved(Track(each.track, each.track.with_suffix(".INFO")), [FULL], {"full": APPROVED}) for each in compared
    ]
    return evaluate(compared, approved, of or adapter())


def test_kept_claims_and_new_words_are_better() -> None:
    found = evaluated(OLD, KEEPS)
    assert found.is_better
    assert {kind: (score.total, score.base, score.adapted) for kind, score in found.scores.items()}[Kind.TEMPO] == (
        2,
        2,
        2,
    )
    assert [(each.word, each.approved, each.base, each.adapted) for each in found.words if each.word == "reed"] == [
        ("reed", 2, 0, 2)
    ]
    assert (list(found.lost), list(found.gained)) == ([], [])
    assert found.verdict.startswith("better: ")


def test_a_lost_claim_is_not_recommended() -> None:
    found = evaluated(OLD, WORSE)
    assert not found.is_better
    assert {(claim.kind, claim.value) for claim in found.lost} == {(Kind.TEMPO, "120 BPM"), (Kind.GENRE, "house")}
    assert found.scores[Kind.GENRE].extra_adapted == 2
    assert found.scores[Kind.GENRE].extra_base == 0
    assert found.verdict.startswith("not recommended: ")
    assert "lost: 0.wav [full] tempo 120 BPM" in "\n".join(evaluation_lines(found))


def test_a_loss_that_did_not_fall_is_not_recommended() -> None:
    assert not evaluated(OLD, KEEPS, of=adapter(0.2, 0.3)).is_better


def test_an_adapter_that_gives_no_caption_is_not_recommended() -> None:
    found = evaluated(OLD, "", times=2)
    assert (found.captions, found.failed, found.scores[Kind.KEY].total) == (2, 2, 2)
    assert len(found.lost) == sum(score.base for score in evaluated(OLD, OLD).scores.values()) > 0
    assert not found.is_better
    assert found.verdict.endswith("it gave no caption 2 times")


def test_what_the_base_failed_to_answer_is_left_out() -> None:
    found = evaluated("", KEEPS)
    assert (found.captions, found.scores[Kind.KEY].total) == (0, 0)
    assert not found.is_better, "nothing was compared"


def test_the_page_and_the_json_hold_it() -> None:
    found = evaluated(OLD, WORSE)
    page = render([], Path(), found)
    assert evaluation_section(found) in page
    assert "Lost: 4 claims" in page
    assert found.as_json()["claims"]["tempo"] == {
        "approved": 2,
        "base": 2,
        "adapter": 0,
        "extra_base": 0,
        "extra_adapter": 0,
    }


def test_only_validation_tracks_with_approved_captions_count(make_wav: MakeWav, tmp_path: Path) -> None:
    for name, approved in (("a", True), ("b", True), ("c", False)):
        sidecar = make_wav(f"data/{name}.wav").with_suffix(".INFO")
        sidecar.write_text(
            f'{{"music_flamingo_full": "{APPROVED}", "music_flamingo_approved": {str(approved).lower()}}}'
        )
    found = validation_tracks([tmp_path / "data"], adapter(held_out=("a.wav", "c.wav")), [FULL])
    assert [(each.track.audio.name, each.captions) for each in found] == [("a.wav", {"full": APPROVED})]
    with pytest.raises(ConfigError, match="none of the 1 validation tracks"):
        validation_tracks([tmp_path / "data"], adapter(held_out=("z.wav",)), [FULL])
