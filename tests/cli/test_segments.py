from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import soundfile
from typer.testing import CliRunner

from musicflamingo_cli.cli import app
from musicflamingo_cli.errors import ExitCode
from musicflamingo_cli.sidecars.merge import read_sidecar
from musicflamingo_cli.sidecars.segments import segments_of
from tests.conftest import MakeWav
from tests.engines.remote.test_real_endpoint import plain_server
from tests.fakes.mtmd_cli import write_fake
from tiny_flamingo import music
from tiny_flamingo.songs import SONGS

runner = CliRunner()
PAIR = ("--model", "F32", "--engine", "mtmd-cli", "--preset", "brief")


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (("--hop", "5"), "--hop is about segments"),
        (("--align", "beats"), "--align is about segments"),
        (("--summary",), "--summary is about segments"),
        (("--segments", "30", "--ray"), "--ray is not available with --segments"),
        (("--segments", "30", "--fields"), "--fields is not available with --segments"),
        (("--segments", "30", "--redo-doubtful"), "--redo-doubtful is not available with --segments"),
        (("--segments", "30", "--ask", "What is it?"), "--ask without --save-as is not available"),
        (("--segments", "30", "--summary", "--engine", "mtmd-cli"), "--summary asks without audio"),
        (("--segments", "1"), "greater than or equal to 2"),
    ],
)
def test_what_does_not_go_together(make_wav: MakeWav, options: tuple[str, ...], message: str) -> None:
    done = runner.invoke(app, ["batch", str(make_wav().parent), *options])
    assert done.exit_code == ExitCode.USAGE
    assert message in " ".join(done.output.split())


def test_stores_are_refused() -> None:
    done = runner.invoke(app, ["batch", "s3://bucket/folder", "--segments", "30"])
    assert (done.exit_code, "a store is not available with --segments" in done.output) == (ExitCode.USAGE, True)


def test_a_batch_captions_segments(
    make_wav: MakeWav, tmp_path: Path, random_models: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    audio = make_wav("data/a.wav", seconds=12)
    monkeypatch.setenv("MUSICFLAMINGO_MODELS_DIR", str(random_models))
    monkeypatch.setenv("MUSICFLAMINGO_LLAMA_DIR", str(write_fake(tmp_path / "llama", "answer")))
    words = ["batch", str(audio.parent), "--segments", "5", *PAIR]
    done = runner.invoke(app, [*words, "--json"])
    assert done.exit_code == 0, done.output
    (line,) = (json.loads(line) for line in done.stdout.splitlines())
    assert line["captions"] == {}
    assert [(each["start"], each["end"], list(each["captions"])) for each in line["segments"]] == [
        (0, 5, ["brief"]),
        (5, 10, ["brief"]),
    ]
    assert len(segments_of(read_sidecar(audio.with_suffix(".INFO")))) == 2
    for command in (
        ["status", str(audio.parent)],
        ["report", str(audio.parent), "--out", str(tmp_path / "r.html")],
        words,
    ):
        again = runner.invoke(app, command)
        assert again.exit_code == 0, again.output
    assert "0 tracks to caption, 1 complete" in again.output
    other = runner.invoke(app, ["batch", str(audio.parent), "--segments", "4", *PAIR])
    assert "1 skipped" in other.output
    assert "cut in another way" in other.output


@pytest.mark.real
@pytest.mark.slow
def test_segments_go_to_two_endpoints(tmp_path: Path, real_llama_dir: Path) -> None:
    """Each segment is asked about by one of them and named rightly.

    A summary is asked for without audio. The tiny model cannot write one: what it makes up is refused and not saved.
    """
    (tmp_path / "music").mkdir()
    chosen = [SONGS["house loop"], SONGS["slow organ"]]
    for number, song in enumerate(chosen):
        samples = np.tile(music.render(song, music.Recording(noise_db=-70.0), 16_000)[0][: 16_000 * 10], 3)
        soundfile.write(tmp_path / "music" / f"{number}.wav", samples, 16_000)
    (tmp_path / "a").mkdir()
    (tmp_path / "b").mkdir()
    with plain_server(real_llama_dir, tmp_path / "a") as one, plain_server(real_llama_dir, tmp_path / "b") as two:
        words = ["batch", str(tmp_path / "music"), "--segments", "10", "--summary", "-p", "technical", "--json"]
        done = runner.invoke(app, [*words, "--endpoint", one, "--endpoint", two, "--temperature", "0"])
    assert (done.exit_code, done.output.count("the summary claims what the captions do not")) == (1, 4), done.output
    by = set()
    for number, song in enumerate(chosen):
        info = read_sidecar(tmp_path / "music" / f"{number}.INFO")
        segments = segments_of(info)
        assert [(each.span.start, each.span.end) for each in segments] == [(0, 10), (10, 20), (20, 30)]
        for segment in segments:
            assert str(song.tempo) in segment.captions["technical"]
            by.add(segment.provenance["technical"]["endpoint"])
        assert "music_flamingo_summary" not in info
    assert by == {f"{one}/v1", f"{two}/v1"}
