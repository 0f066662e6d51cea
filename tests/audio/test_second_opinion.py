"""essentia is not installed with the program: without it there is no opinion, and its double gets the right samples."""

from __future__ import annotations

import importlib.machinery
import importlib.util
import sys
import types
from pathlib import Path

import numpy as np
import pytest
import soundfile

from musicflamingo_cli.audio import second_opinion
from musicflamingo_cli.audio.second_opinion import Opinion
from musicflamingo_cli.trust.measuring import measure_track


@pytest.fixture
def audio(tmp_path: Path) -> Path:
    path = tmp_path / "a.wav"
    soundfile.write(path, 0.1 * np.sin(np.arange(48_000 * 3)), 48_000)
    return path


@pytest.mark.skipif(importlib.util.find_spec("essentia") is not None, reason="essentia is installed")
def test_without_the_library_there_is_no_opinion(audio: Path) -> None:
    assert second_opinion.second_opinion(audio) is None
    assert measure_track(audio).essentia is None


def install_double(monkeypatch: pytest.MonkeyPatch, bpm: float, key: tuple[str, str, float]) -> list[int]:
    """A module with the two algorithms; returns the list that gets the number of samples of each call."""
    lengths: list[int] = []

    def algorithm(result: object) -> object:
        def run(samples: np.ndarray) -> object:
            assert samples.dtype == np.float32
            lengths.append(len(samples))
            return result

        return lambda **parameters: run

    package, standard = types.ModuleType("essentia"), types.ModuleType("essentia.standard")
    package.__spec__ = importlib.machinery.ModuleSpec("essentia", None)
    standard.PercivalBpmEstimator = algorithm(bpm)  # type: ignore[attr-defined]
    standard.KeyExtractor = algorithm(key)  # type: ignore[attr-defined]
    package.standard = standard  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "essentia", package)
    monkeypatch.setitem(sys.modules, "essentia.standard", standard)
    return lengths


def test_with_the_library_its_opinion_is_kept(audio: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    lengths = install_double(monkeypatch, 123.456, ("Eb", "minor", 0.8))
    assert measure_track(audio).essentia == Opinion(123.46, "Eb minor")
    assert lengths == pytest.approx([3 * 44_100] * 2, abs=2)


def test_long_tracks_are_cut_and_odd_keys_left_out(audio: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(second_opinion, "_LONGEST", 1)
    lengths = install_double(monkeypatch, 0.0, ("H", "minor", 0.8))
    assert second_opinion.second_opinion(audio) == Opinion(None, None)
    assert lengths == [44_100] * 2
