"""The temporary folder may have any name: llama.cpp splits lists of files and of addresses at commas."""

from __future__ import annotations

import contextlib
import tempfile
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from musicflamingo_cli.audio.clip import prepared
from musicflamingo_cli.choices import EngineName
from musicflamingo_cli.config import Settings
from musicflamingo_cli.engines import open_engine
from musicflamingo_cli.models.resolve import resolve
from musicflamingo_cli.types import Answer, Prompt, Sampling, Workload
from tests.conftest import MakeWav

LLAMA_CPP = (EngineName.SERVER, EngineName.MTMD_CLI, EngineName.EMBEDDED, EngineName.NATIVE)


@pytest.fixture(params=["a, b", 'a "b", c', "a b'c"])
def scratch(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A temporary folder with a difficult name; a short path, so that the server's socket is in it, too."""
    with tempfile.TemporaryDirectory(prefix=request.param, dir="/tmp") as folder:
        monkeypatch.setattr(tempfile, "tempdir", folder)
        yield Path(folder)


@pytest.mark.real
@pytest.mark.parametrize("name", LLAMA_CPP)
def test_engines_work_in_any_temporary_folder(
    make_wav: MakeWav, random_settings: Settings, scratch: Path, name: EngineName
) -> None:
    model = resolve("F32", random_settings.models_folder)
    engine, _ = open_engine(replace(random_settings, engine=name), model, Workload(1, 1))
    prompt = Prompt(preset="full", text="Describe it.", max_tokens=8)
    with contextlib.closing(engine), prepared(make_wav()) as clip:
        assert clip.path.is_relative_to(scratch)
        (answer,) = engine.describe(clip, [prompt], Sampling(temperature=0.0))
    assert isinstance(answer, Answer), answer
