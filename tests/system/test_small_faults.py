"""Small ways of losing what a person made: each was one command away."""

from __future__ import annotations

import os
import shutil
import socket
from pathlib import Path

import pytest
from typer.testing import CliRunner

from musicflamingo_cli.captioning.run_log import RunLog
from musicflamingo_cli.choices import AudioPlacement, ExportFormat
from musicflamingo_cli.cli import app
from musicflamingo_cli.demo.folder import copy_music
from musicflamingo_cli.errors import ConfigError
from musicflamingo_cli.exports import ExportStats, Target, export
from musicflamingo_cli.models.resolve import files_of
from musicflamingo_cli.paths import user_config_dir
from musicflamingo_cli.sidecars.captions import caption_key
from musicflamingo_cli.sidecars.merge import merge_sidecar
from musicflamingo_cli.system import temporary
from musicflamingo_cli.text.t5_tokens import TokenStats, token_counter
from musicflamingo_cli.types import Summary
from tests.conftest import MakeWav
from tests.exports.conftest import ALL_CAPTIONS, write_sound
from tiny_flamingo import random_pair

MODEL, PROJECTOR = random_pair.LANGUAGE_MODEL_NAME, random_pair.PROJECTOR_NAME


def test_removing_a_model_keeps_the_projectors_of_others(random_models: Path, tmp_path: Path) -> None:
    shutil.copy(random_models / MODEL, tmp_path / "a.Q6_K.gguf")
    shutil.copy(random_models / PROJECTOR, tmp_path / "a.mmproj.gguf")
    shutil.copy(random_models / PROJECTOR, tmp_path / "b.mmproj.gguf")
    assert [path.name for path in files_of("Q6_K", tmp_path)] == ["a.Q6_K.gguf", "a.mmproj.gguf"]
    (tmp_path / "a.mmproj.gguf").unlink()
    random_pair.write_projector(tmp_path / "b.mmproj.gguf", projection=96)
    assert [path.name for path in files_of("Q6_K", tmp_path)] == ["a.Q6_K.gguf"]


def test_prompts_init_does_not_write_through_a_link(tmp_path: Path) -> None:
    own = user_config_dir() / "prompts.yaml"
    own.parent.mkdir(parents=True)
    own.symlink_to(tmp_path / "elsewhere")
    assert CliRunner().invoke(app, ["prompts", "init"]).exit_code == 2
    assert not (tmp_path / "elsewhere").exists()


def test_prompts_init_does_not_make_a_misspelt_folder(tmp_path: Path) -> None:
    assert CliRunner().invoke(app, ["prompts", "init", "--dataset", str(tmp_path / "musci")]).exit_code == 2
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("text", ["my notes\n", '{"event": "note"}\n', "[1]\n"])
def test_a_run_log_is_not_appended_to_other_files(tmp_path: Path, text: str) -> None:
    log = tmp_path / "log"
    log.write_text(text)
    with pytest.raises(ConfigError, match="no run log"):
        RunLog(log, [tmp_path])
    assert log.read_text() == text
    log.write_text("")
    for _ in range(2):
        RunLog(log, [tmp_path]).end(Summary())
    assert len(log.read_text().splitlines()) == 4


def test_a_demo_rejects_files_that_would_share_a_sidecar(tmp_path: Path) -> None:
    write_sound(tmp_path / "x.flac", 0.1)
    write_sound(tmp_path / "x.wav", 0.1)
    (tmp_path / "out").mkdir()
    with pytest.raises(ConfigError, match="share a sidecar"):
        copy_music([tmp_path / "x.flac", tmp_path / "x.wav"], tmp_path / "out")


def test_a_demo_takes_a_file_that_is_in_its_folder(make_wav: MakeWav) -> None:
    audio = make_wav()
    before = audio.read_bytes()
    assert list(copy_music([audio], audio.parent)) == [audio]
    assert audio.read_bytes() == before


def test_an_edited_copy_of_equal_size_is_kept(tmp_path: Path) -> None:
    music, out = tmp_path / "music", tmp_path / "out"
    write_sound(music / "x.wav", 0.5)
    merge_sidecar(music / "x.INFO", {caption_key("full"): "A tone."})

    def run() -> None:
        target = Target(out, audio=AudioPlacement.COPY, overwrite=True)
        export(ExportFormat.TXT, music, target, ALL_CAPTIONS, ExportStats(), TokenStats(token_counter(None)))

    run()
    run()  # its own export is replaced
    (copy,) = out.rglob("x.wav")
    edited = copy.read_bytes()[:-4] + b"edit"
    copy.write_bytes(edited)
    os.utime(copy, ns=(0, copy.stat().st_mtime_ns + 1_000_000))
    with pytest.raises(ConfigError, match="edited after the export"):
        run()
    assert copy.read_bytes() == edited


def test_machines_of_one_name_differ(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(socket, "gethostname", lambda: "node")
    here = temporary.owner()
    monkeypatch.setattr(Path, "read_text", lambda *arguments, **options: "another machine")
    assert temporary.owner() != here
