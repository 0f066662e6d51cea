"""Asking the model again: what it is asked, and what taking its answer does to the sidecar."""

from __future__ import annotations

import contextlib
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from musicflamingo_cli.captioning.captioner import Captioner, Policy
from musicflamingo_cli.config import Settings
from musicflamingo_cli.prompts import Preset
from musicflamingo_cli.review import asks, edits
from musicflamingo_cli.review.asks import Ask, Asks, AskState
from musicflamingo_cli.review.edits import base_of
from musicflamingo_cli.review.history import History
from musicflamingo_cli.review.library import Library
from musicflamingo_cli.sidecars.captions import MEASURED_KEY
from musicflamingo_cli.sidecars.merge import merge_sidecar, read_sidecar
from musicflamingo_cli.trust import measured
from musicflamingo_cli.types import Prompt, Sampling
from tests.fakes.engines import GOOD, REAL_PAIR, ScriptedEngine
from tests.review.conftest import make_dataset
from tests.trust.test_check import measurement

PROMPT = "Describe this track of {measured_bpm} BPM in {measured_key}."


@pytest.fixture
def library(tmp_path: Path) -> Library:
    found = Library(make_dataset(tmp_path / "music", 1), ["full", "structure"])
    found.scan()
    merge_sidecar(found.entries[0].track.sidecar, {MEASURED_KEY: measured.as_json(measurement())})
    return found


@pytest.fixture
def prompts(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The prompts that reach the engine, which always gives the same answer."""
    asked: list[str] = []

    def reply(prompt: Prompt, sampling: Sampling) -> str:
        asked.append(prompt.text)
        return GOOD

    engine = ScriptedEngine(reply)

    @contextlib.contextmanager
    def opened(*_: Any) -> Iterator[Captioner]:
        yield Captioner(engine, REAL_PAIR, Policy())

    monkeypatch.setattr(asks, "open_captioner", opened)
    return asked


def answered(library: Library) -> Ask:
    """The full caption, asked for again."""
    asking = Asks(Settings(), {"full": Preset("full", PROMPT)})
    ask = asking.add(library.entries[0], "full", {})
    deadline = time.monotonic() + 20
    while ask.state not in (AskState.ANSWERED, AskState.FAILED) and time.monotonic() < deadline:
        time.sleep(0.02)
    asking.stop()
    assert ask.state == AskState.ANSWERED, ask.reason
    return ask


def test_measured_values_are_in_the_prompt(library: Library, prompts: list[str]) -> None:
    answered(library)
    assert prompts == ["Describe this track of 95 BPM in E minor."]


def test_a_question_while_the_engine_closes_is_answered(library: Library, monkeypatch: pytest.MonkeyPatch) -> None:
    closing, may_close = threading.Event(), threading.Event()

    @contextlib.contextmanager
    def opened(*_: Any) -> Iterator[Captioner]:
        yield Captioner(ScriptedEngine(lambda prompt, sampling: GOOD), REAL_PAIR, Policy())
        closing.set()
        may_close.wait(20)

    monkeypatch.setattr(asks, "open_captioner", opened)
    monkeypatch.setattr(asks, "_IDLE", 0.5)
    asking = Asks(Settings(), {"full": Preset("full", PROMPT)})
    asking.add(library.entries[0], "full", {})
    assert closing.wait(20)
    late = asking.add(library.entries[0], "full", {})
    may_close.set()
    deadline = time.monotonic() + 20
    while late.state is not AskState.ANSWERED and time.monotonic() < deadline:
        time.sleep(0.02)
    asking.stop()
    assert late.state is AskState.ANSWERED


@pytest.mark.parametrize("was_approved", [True, False])
def test_a_taken_answer_leaves_an_approved_track_approved(
    library: Library, prompts: list[str], was_approved: bool
) -> None:
    entry, history = library.entries[0], History(library)
    info = read_sidecar(entry.track.sidecar)
    bases = {preset: base_of(info[f"music_flamingo_{preset}"]) for preset in ("full", "structure")}
    if was_approved:
        history.apply("approve", entry, edits.approve(bases, True))
    ask = answered(library)
    assert ask.answer is not None
    history.apply("take", entry, edits.take("full", bases["full"], ask.answer.keys))
    info = read_sidecar(entry.track.sidecar)
    assert info["music_flamingo_full"] == GOOD
    assert info["music_flamingo_provenance"]["full"]["approved"] is True
    assert info.get("music_flamingo_approved", False) is was_approved
