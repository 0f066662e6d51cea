"""What all tests share: a home of their own, sound made on the spot, the real binary and the tiny model."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import soundfile

from musicflamingo_cli.config import Settings
from musicflamingo_cli.errors import ToolMissingError
from musicflamingo_cli.llamacpp import binaries
from tiny_flamingo.random_pair import write_random_pair

RATE = 16_000
MakeWav = Callable[..., Path]


def _find_real_binary() -> Path | str:
    given = os.environ.get("MUSICFLAMINGO_LLAMA_DIR")
    try:
        return binaries.find(binaries.MTMD_CLI, Path(given) if given else None)
    except ToolMissingError as error:
        return f"{error}; {error.hint}"


# Looked up before any test gets a home of its own.
_REAL_BINARY = _find_real_binary()


@pytest.fixture(autouse=True)
def _own_home(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> None:
    """No test can touch the user's home, settings or models."""
    home = tmp_path_factory.mktemp("home")
    monkeypatch.setenv("HOME", str(home))
    for name in ("CONFIG", "CACHE", "DATA", "STATE"):
        monkeypatch.setenv(f"XDG_{name}_HOME", str(home / name.lower()))
    for name in ("MODELS_DIR", "LLAMA_DIR", "CONFIG"):
        monkeypatch.delenv(f"MUSICFLAMINGO_{name}", raising=False)
    for name in ("HF_HOME", "HF_HUB_CACHE", "HUGGINGFACE_HUB_CACHE"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(home / "hub"))  # read once, when it is imported


@pytest.fixture(scope="session")
def real_llama_dir() -> Path:
    """The folder of the real binaries. With MUSICFLAMINGO_REQUIRE_REAL (as `make test` sets) it must be there."""
    if isinstance(_REAL_BINARY, Path):
        return _REAL_BINARY.parent
    if os.environ.get("MUSICFLAMINGO_REQUIRE_REAL"):
        pytest.fail(f"the real binary is required: {_REAL_BINARY}")
    pytest.skip(f"NOT RUN on the real binary: {_REAL_BINARY}")


@pytest.fixture(scope="session")
def random_models(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A models folder that holds the tiny pair."""
    folder = tmp_path_factory.mktemp("models")
    write_random_pair(folder)
    return folder


@pytest.fixture(scope="session")
def generators(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with random MusicGen checkpoints: mono, stereo, melody, and one of another rate."""
    from tiny_flamingo.random_musicgen import write_random_musicgen  # takes seconds to import

    folder = tmp_path_factory.mktemp("generators")
    write_random_musicgen(folder / "mono")
    write_random_musicgen(folder / "stereo", channels=2)
    write_random_musicgen(folder / "melody", melody=True)
    write_random_musicgen(folder / "24 kHz", rate=24_000)
    return folder


@pytest.fixture
def random_settings(real_llama_dir: Path, random_models: Path) -> Settings:
    """The tiny model behind the real binary, at temperature 0."""
    # One thread: ggml's threads spin while they wait, so that tests side by side would slow one another a lot.
    return Settings(
        model="F32", models_dir=random_models, llama_dir=real_llama_dir, temperature=0.0, timeout=120, threads=1
    )


def start_batch(data: Path, settings: Settings, *options: str, scratch: Path) -> subprocess.Popen[str]:
    """`musicflamingo batch` on the real binary, to be interrupted; its temporary files go to ``scratch``."""
    command = [sys.executable, "-m", "musicflamingo_cli", "batch", str(data), "--model", settings.model]
    command += ["--models-dir", str(settings.models_folder), "--llama-dir", str(settings.llama_dir)]
    command += ["--threads", str(settings.threads), *options]
    environment = {**os.environ, "TMPDIR": str(scratch)}
    return subprocess.Popen(command, stderr=subprocess.PIPE, text=True, env=environment, preexec_fn=hear_interrupts)


def hear_interrupts() -> None:
    """For Popen's preexec_fn: a shell's background job, and all it starts, would ignore SIGINT."""
    signal.signal(signal.SIGINT, signal.SIG_DFL)


def tone(seconds: float, hertz: float = 440.0, rate: int = RATE, channels: int = 1) -> np.ndarray:
    """A pulsed tone, shape (frames, channels), float64 within ±0.5."""
    time = np.arange(round(seconds * rate)) / rate
    wave = 0.5 * np.sin(2 * np.pi * hertz * time) * (0.6 + 0.4 * np.sign(np.sin(2 * np.pi * 2 * time)))
    return np.repeat(wave[:, None], channels, axis=1)


@pytest.fixture
def make_wav(tmp_path: Path) -> MakeWav:
    """``make_wav(name, seconds=1, hertz=440, rate=16000, channels=1)`` writes a tone and returns its path."""

    def make(
        name: str = "tone.wav", seconds: float = 1.0, hertz: float = 440.0, rate: int = RATE, channels: int = 1
    ) -> Path:
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        soundfile.write(path, tone(seconds, hertz, rate, channels), rate)
        return path

    return make


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """Say how many of the tests that need the real binary ran, and on which."""
    ran = [r for key in ("passed", "failed") for r in terminalreporter.stats.get(key, []) if "real" in r.keywords]
    where = f"on {_REAL_BINARY}" if isinstance(_REAL_BINARY, Path) else "NOT RUN on the real binary"
    terminalreporter.write_line(f"real llama.cpp: {len({r.nodeid for r in ran})} tests ran {where}")
    skipped = [r for r in terminalreporter.stats.get("skipped", []) if "NOT RUN in a browser" in str(r.longrepr)]
    if skipped:
        terminalreporter.write_line(f"NOT RUN in a browser: {len(skipped)} tests of the report", yellow=True, bold=True)
