from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest
import soundfile

from musicflamingo_cli.dataset.tracks import track_for
from musicflamingo_cli.demo.folder import MARKER, claim_folder, put_music
from musicflamingo_cli.demo.songs import songs
from musicflamingo_cli.errors import ConfigError
from tests.conftest import MakeWav


def test_the_music_is_in_three_formats_with_known_attributes(tmp_path: Path) -> None:
    put = put_music(tmp_path)
    assert [path.suffix for path in put] == [".flac", ".wav", ".mp3"]
    for path, truth in put.items():
        samples, rate = soundfile.read(path)
        assert rate == 44_100
        assert 12 * rate < len(samples) < 30 * rate
        assert 0.1 < abs(samples).max() <= 1
        assert set(truth) == {"tempo", "key", "lead", "bass", "drums", "structure"}


def test_a_demo_never_uses_a_folder_with_other_files(tmp_path: Path) -> None:
    (tmp_path / "song.INFO").write_text("{}")
    with pytest.raises(ConfigError, match="no demo made it"):
        claim_folder(tmp_path)
    for _ in range(2):
        claim_folder(tmp_path / "new")


@pytest.mark.real
@pytest.mark.slow
@pytest.mark.parametrize("engine", ["auto", "embedded"])
def test_the_demo_prints_and_saves_captions(engine: str, tmp_path: Path, real_llama_dir: Path) -> None:
    command = [sys.executable, "-m", "musicflamingo_cli", "demo", "--threads", "1", "--engine", engine]
    command += ["--llama-dir", str(real_llama_dir)]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
    assert "TINY MODEL" in done.stderr
    assert done.stdout.count("actual: ") == 3
    for song, path in zip(songs(), put_music(tmp_path / "musicflamingo-demo"), strict=True):
        info = json.loads(track_for(path).sidecar.read_text())
        assert song.missed(info["music_flamingo_full"]) == []
        assert info["music_flamingo_full"] in done.stdout
        assert len([key for key in info if key.startswith("music_flamingo_")]) == 7


@pytest.mark.real
@pytest.mark.slow
def test_a_given_file_is_copied_and_not_changed(make_wav: MakeWav, tmp_path: Path, real_llama_dir: Path) -> None:
    audio = make_wav("mine/song.wav")
    command = [sys.executable, "-m", "musicflamingo_cli", "demo", str(audio), "--preset", "brief", "--out", "out"]
    command += ["--llama-dir", str(real_llama_dir)]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == [MARKER, "song.INFO", "song.wav"]
    assert list(audio.parent.iterdir()) == [audio]
