"""Measuring real files: what is found, what is skipped, what fails, and what a crash costs."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import soundfile
from numpy.typing import NDArray

from musicflamingo_cli.dataset.tracks import find_tracks, track_for
from musicflamingo_cli.demo.songs import songs
from musicflamingo_cli.errors import AudioError, FailureKind
from musicflamingo_cli.sidecars.captions import MEASURED_KEY
from musicflamingo_cli.sidecars.merge import read_sidecar
from musicflamingo_cli.trust import measuring
from musicflamingo_cli.trust.measured import Stated, measured_of
from musicflamingo_cli.trust.measuring import Measurement, measure_track, measure_tracks
from musicflamingo_cli.types import Track


def tone(path: Path, seconds: float = 2.0, rate: int = 16_000) -> Path:
    soundfile.write(path, 0.1 * np.sin(2 * np.pi * 440 / rate * np.arange(int(seconds * rate))), rate)
    return path


def tracks_in(folder: Path) -> list[Track]:
    return [item for item in find_tracks(folder) if isinstance(item, Track)]


@pytest.mark.parametrize("song", songs(), ids=lambda song: song.path.stem)
def test_the_songs_that_come_with_the_model(song: object) -> None:
    from musicflamingo_cli.demo.songs import Song

    assert isinstance(song, Song)
    found = measure_track(song.path)
    assert found.key is not None
    assert found.key.name == song.truth["key"]
    assert found.tempo is not None
    tempi = {round(bpm) for bpm in (found.tempo.bpm, *found.tempo.alternatives)}
    assert int(song.truth["tempo"].split()[0]) in tempi
    assert found.lufs is not None
    assert -30 < found.lufs < -10
    assert found.width == 0.0
    assert found.silence == 0.0


def stereo(path: Path, left: NDArray[np.float64], right: NDArray[np.float64], rate: int = 44_100) -> Path:
    soundfile.write(path, np.stack([left, right], 1), rate, subtype="FLOAT")
    return path


def test_channels_that_cancel_out(tmp_path: Path) -> None:
    samples, rate = soundfile.read(songs()[0].path)
    found = measure_track(stereo(tmp_path / "a.wav", samples, -samples, rate))
    assert found.key is not None
    assert found.key.name == songs()[0].truth["key"]
    assert found.width == pytest.approx(1.0)


def test_silence_is_unknown(tmp_path: Path) -> None:
    silence = np.zeros(44_100 * 6)
    found = measure_track(stereo(tmp_path / "a.wav", silence, silence))
    assert (found.tempo, found.key, found.lufs, found.width) == (None, None, None, None)
    assert (found.silence, found.seconds) == (1.0, 6.0)


def test_nan_and_absurd_samples_do_no_harm(tmp_path: Path) -> None:
    samples = np.random.default_rng(0).standard_normal(44_100 * 3)
    samples[1000] = np.nan
    samples[2000] = np.inf
    samples[3000] = 1e30
    found = measure_track(stereo(tmp_path / "a.wav", samples, samples))
    assert json.loads(json.dumps(found.silence, allow_nan=False)) == found.silence
    assert found.key is None


@pytest.mark.parametrize("samples", [1, 100, 3000])
def test_very_short_files(tmp_path: Path, samples: int) -> None:
    found = measure_track(stereo(tmp_path / "a.wav", np.ones(samples) / 2, np.ones(samples) / 2))
    assert (found.tempo, found.key) == (None, None)


def test_what_is_no_audio_is_an_error(tmp_path: Path) -> None:
    (tmp_path / "a.wav").write_text("not audio")
    with pytest.raises(AudioError):
        measure_track(tmp_path / "a.wav")


def test_a_dataset_is_measured_once(tmp_path: Path) -> None:
    tone(tmp_path / "a.wav")
    tone(tmp_path / "b.wav", 3.0)
    (tmp_path / "b.INFO").write_text('{"bpm": 128, "key": "Am", "other": 1e400}')
    (tmp_path / "c.wav").write_text("not audio")
    (tmp_path / "d.INFO").write_text("{ broken")
    tone(tmp_path / "d.wav")
    first = {each.track.audio.name: each for each in measure_tracks(tracks_in(tmp_path), 2)}
    assert {name: each.is_new for name, each in first.items()} == {
        "a.wav": True,
        "b.wav": True,
        "c.wav": False,
        "d.wav": False,
    }
    assert first["b.wav"].stated == Stated(128.0, "Am")
    failures = {name: each.failure.kind for name, each in first.items() if each.failure}
    assert failures == {"c.wav": FailureKind.UNREADABLE_AUDIO, "d.wav": FailureKind.SIDECAR}
    assert (tmp_path / "b.INFO").read_text().startswith('{"bpm": 128, "key": "Am", "other": 1e400, ')
    assert measured_of(read_sidecar(tmp_path / "a.INFO"), tmp_path / "a.wav") == first["a.wav"].measured
    assert (tmp_path / "d.INFO").read_text() == "{ broken"

    tone(tmp_path / "b.wav", 4.0)  # replaced
    second = {each.track.audio.name: each for each in measure_tracks(tracks_in(tmp_path), 1)}
    assert not second["a.wav"].is_new
    assert second["a.wav"].measured == first["a.wav"].measured
    assert second["b.wav"].is_new
    assert not list(tmp_path.glob("*.lock"))
    assert all(each.is_new for each in measure_tracks(tracks_in(tmp_path)[:2], 1, overwrite=True))


def crashing(track: Track) -> Measurement:
    """Measure, but end the process for one track, as a bug of a decoder would."""
    if track.audio.stem == "bad":
        os._exit(11)
    return measuring._measure_and_save(track)


def test_a_crash_costs_only_its_track(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("a", "b", "bad", "c", "d"):
        tone(tmp_path / f"{name}.wav")
    monkeypatch.setattr(measuring, "_WORK", crashing)
    found = {each.track.audio.stem: each for each in measure_tracks(tracks_in(tmp_path), 2)}
    assert sorted(found) == ["a", "b", "bad", "c", "d"]
    assert [name for name, each in found.items() if each.failure] == ["bad"]


def test_leaving_early_keeps_what_is_done(tmp_path: Path) -> None:
    for number in range(6):
        tone(tmp_path / f"{number}.wav")
    for found in measure_tracks(tracks_in(tmp_path), 1):
        assert found.is_new
        break
    saved = [path for path in tmp_path.glob("*.INFO") if MEASURED_KEY in read_sidecar(path)]
    assert 1 <= len(saved) < 6


def test_workers_end_with_a_killed_parent(tmp_path: Path) -> None:
    """A worker that outlives a `kill -9` would keep the memory and the files."""
    tone(tmp_path / "a.wav")
    script = (
        "import sys, os\n"
        "from pathlib import Path\n"
        "from musicflamingo_cli.dataset.tracks import track_for\n"
        "from musicflamingo_cli.trust import measuring\n"
        "if __name__ == '__main__':\n"
        "    for found in measuring.measure_tracks([track_for(Path(sys.argv[1]))] * 2, 1, overwrite=True):\n"
        "        import multiprocessing\n"
        "        print(*[child.pid for child in multiprocessing.active_children()], flush=True)\n"
        "        os.kill(os.getpid(), 9)\n"
    )
    (tmp_path / "run.py").write_text(script)
    ended = subprocess.run(
        [sys.executable, tmp_path / "run.py", tmp_path / "a.wav"],
        stdout=subprocess.PIPE,
        check=False,
        timeout=60,
        env={**os.environ, "PYTHONPATH": str(Path(measuring.__file__).parents[2])},
    )
    assert ended.returncode == -signal.SIGKILL
    workers = [int(pid) for pid in ended.stdout.split()]
    assert workers
    deadline = time.monotonic() + 10
    while any(is_running(pid) for pid in workers):
        assert time.monotonic() < deadline
        time.sleep(0.05)


def is_running(pid: int) -> bool:
    try:
        return b") Z" not in Path(f"/proc/{pid}/stat").read_bytes()
    except OSError:
        return False


@pytest.mark.slow
def test_memory_does_not_grow_with_the_length(tmp_path: Path) -> None:
    """Peak memory of a process that measures 20 minutes is that of one that measures one, within 15 MB."""
    peaks = []
    for minutes in (1, 20):
        path = tmp_path / f"{minutes}.wav"
        with soundfile.SoundFile(path, "w", 44_100, 2) as file:
            second = 0.2 * np.random.default_rng(0).standard_normal((44_100, 2))
            for _ in range(60 * minutes):
                file.write(second)
        script = (
            "import re, sys\n"
            "from pathlib import Path\n"
            "from musicflamingo_cli.trust.measuring import measure_track\n"
            "measure_track(Path(sys.argv[1]))\n"
            "print(re.search(r'VmHWM:\\s+(\\d+)', Path('/proc/self/status').read_text())[1])\n"
        )
        done = subprocess.run([sys.executable, "-c", script, path], stdout=subprocess.PIPE, check=True)
        peaks.append(int(done.stdout) / 1024)
    assert peaks[1] - peaks[0] < 15


def test_a_single_file_is_a_track(tmp_path: Path) -> None:
    track = track_for(tone(tmp_path / "a.wav"))
    (found,) = measure_tracks([track])
    assert found.is_new
    assert found.seconds > 0
