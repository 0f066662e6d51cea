"""Exports that copy audio leave the machine, so they hold nothing but audio of the dataset."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from musicflamingo_cli import exports
from musicflamingo_cli.choices import AudioPlacement, ExportFormat
from musicflamingo_cli.exports import ExportStats, Target
from musicflamingo_cli.sidecars.captions import caption_key
from musicflamingo_cli.sidecars.merge import merge_sidecar
from musicflamingo_cli.text.t5_tokens import TokenStats, token_counter
from tests.exports.conftest import ALL_CAPTIONS, write_sound

COPYING = ["txt", "ace-step", "stable-audio", "audiocraft", "audiofolder", "webdataset"]
SECRET = "a private key, which is no audio"


@pytest.fixture
def hostile(tmp_path: Path) -> Path:
    """A dataset of a real track, a link to a secret, a link to audio outside, and a text file called .wav."""
    root = tmp_path / "music"
    write_sound(root / "good.wav", 1.0)
    (tmp_path / "secret").write_text(SECRET)
    (root / "linked.wav").symlink_to(tmp_path / "secret")
    (root / "text.wav").write_text(SECRET)
    write_sound(tmp_path / "outside.wav", 2.0)
    (root / "outside.wav").symlink_to(tmp_path / "outside.wav")
    for name in ("good", "linked", "text", "outside"):
        merge_sidecar(root / f"{name}.INFO", {caption_key("full"): f"A caption of {name}."})
    return root


def contents(out: Path) -> Iterator[bytes]:
    """Yield the content of every file of an export."""
    yield from (path.read_bytes() for path in out.rglob("*") if path.is_file())


@pytest.mark.parametrize("name", COPYING)
@pytest.mark.parametrize("follow_links", [False, True])
def test_only_audio_of_the_dataset_is_copied(hostile: Path, tmp_path: Path, name: str, follow_links: bool) -> None:
    stats = ExportStats()
    target = Target(tmp_path / "out", audio=AudioPlacement.COPY)
    options = replace(ALL_CAPTIONS, follow_links=follow_links)
    exports.export(ExportFormat(name), hostile, target, options, stats, TokenStats(token_counter(None)))
    assert (stats.exported, stats.failures) == ((2, 2) if follow_links else (1, 3))
    assert not any(SECRET.encode() in content for content in contents(tmp_path / "out"))
    outside = (tmp_path / "outside.wav").read_bytes()
    assert any(outside in content for content in contents(tmp_path / "out")) == follow_links
