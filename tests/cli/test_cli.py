"""The commands as a person or a script meets them: arguments in, stdout, stderr and exit code out."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from typer.testing import CliRunner

from musicflamingo_cli.cli import app
from musicflamingo_cli.sidecars.merge import merge_sidecar, read_sidecar
from tests.conftest import MakeWav
from tests.fakes.mtmd_cli import write_fake
from tiny_flamingo import random_pair

Result = subprocess.CompletedProcess[str]


def musicflamingo(*arguments: object, cwd: Path | None = None) -> Result:
    command = [sys.executable, "-m", "musicflamingo_cli", *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, timeout=120, cwd=cwd, stdin=subprocess.DEVNULL)


@pytest.fixture
def fake(tmp_path: Path, random_models: Path) -> list[str]:
    """Options that answer every prompt with a fake binary."""
    folder = write_fake(tmp_path / "llama", "answer")
    return ["--llama-dir", str(folder), "--models-dir", str(random_models), "--model", "F32"]


def test_caption_prints_data_on_stdout_messages_on_stderr(make_wav: MakeWav, fake: list[str]) -> None:
    done = musicflamingo("caption", make_wav(), "--preset", "full", *fake)
    assert done.returncode == 0
    assert done.stdout == "A warm track with drums.\n"
    assert "TINY MODEL" in done.stderr


def test_caption_json_has_the_documented_shape(make_wav: MakeWav, fake: list[str]) -> None:
    audio = make_wav()
    done = musicflamingo("caption", audio, "--preset", "full", "--preset", "brief", "--json", "--save", *fake)
    (line,) = done.stdout.splitlines()
    told = json.loads(line)
    assert told.pop("seconds") > 0
    assert told == {
        "track": str(audio),
        "sidecar": str(audio.with_suffix(".INFO")),
        "captions": {"full": "A warm track with drums.", "brief": "A warm track with drums."},
        "failures": [],
        "skipped": None,
        "engine": "mtmd-cli",
        "model": "random.F32.gguf",
        "audio_seconds": 1.0,
    }
    assert read_sidecar(audio.with_suffix(".INFO"))["music_flamingo_full"] == "A warm track with drums."


def test_caption_without_save_leaves_no_file(make_wav: MakeWav, fake: list[str]) -> None:
    audio = make_wav()
    musicflamingo("caption", audio, *fake)
    assert not audio.with_suffix(".INFO").exists()


def test_ask_is_printed_and_saved_only_under_a_name(make_wav: MakeWav, fake: list[str]) -> None:
    audio = make_wav()
    assert "A warm track" in musicflamingo("caption", audio, "--ask", "What is it?", *fake).stdout
    assert not audio.with_suffix(".INFO").exists()
    assert musicflamingo("caption", audio, "--ask", "What?", "--save-as", "what", *fake).returncode == 0
    assert read_sidecar(audio.with_suffix(".INFO"))["music_flamingo_what"] == "A warm track with drums."


def test_transcribe_is_short_for_the_preset(make_wav: MakeWav, fake: list[str]) -> None:
    audio = make_wav("data/a.wav")
    done = musicflamingo("caption", audio, "--transcribe", "--json", *fake)
    assert list(json.loads(done.stdout)["captions"]) == ["transcription"]
    assert musicflamingo("batch", audio.parent, "--transcribe", *fake).returncode == 0
    saved = read_sidecar(audio.with_suffix(".INFO"))
    assert saved["music_flamingo_provenance"]["transcription"]["prompt"] == "Transcribe the input speech."
    for more in (["--preset", "full"], ["--ask", "x"]):
        refused = musicflamingo("caption", audio, "--transcribe", *more, *fake)
        assert (refused.returncode, "--transcribe excludes" in refused.stderr) == (2, True)


def test_batch_saves_resumes_and_counts(tmp_path: Path, make_wav: MakeWav, fake: list[str]) -> None:
    data = make_wav("data/a.wav").parent
    make_wav("data/b.wav")
    (data / "bad.mp3").write_text("no music")
    first = musicflamingo("batch", data, *fake)
    assert first.returncode == 1
    assert "2 captioned" in first.stderr
    assert "bad.mp3 is not audio" in first.stderr
    before = (data / "a.INFO").stat().st_mtime_ns
    (data / "bad.mp3").unlink()
    again = musicflamingo("batch", data, *fake)
    assert again.returncode == 0
    assert "0 tracks to caption" in again.stderr
    assert (data / "a.INFO").stat().st_mtime_ns == before
    assert sorted(path.name for path in data.iterdir()) == ["a.INFO", "a.wav", "b.INFO", "b.wav"]
    assert "2 captioned" in musicflamingo("batch", data, "--overwrite", *fake).stderr


def test_sound_effects_in_a_dataset_are_skipped(make_wav: MakeWav, fake: list[str]) -> None:
    """One line for all of them, and no failure; named alone, such a file is an error."""
    data = make_wav("data/music.wav", 3).parent
    for index in range(10):
        make_wav(f"data/effect-{index}.wav", 0.3)
    make_wav("data/jingle.wav", 1.5)
    done = musicflamingo("batch", data, *fake)
    assert done.returncode == 0
    assert "2 captioned, 0 already complete, 0 failed, 10 skipped" in done.stderr
    assert [line for line in done.stderr.splitlines() if "effect-" in line or "too short" in line] == [
        "10 of the skipped tracks are too short (see --min-seconds)"
    ]
    again = musicflamingo("batch", data, "--json", "--overwrite", "--min-seconds", "2", *fake)
    assert again.returncode == 0
    found = [json.loads(line) for line in again.stdout.splitlines()]
    assert sum(each["skipped"] == "too short" for each in found) == 11
    assert musicflamingo("caption", data / "effect-1.wav", *fake).returncode == 1


def test_replaced_audio_makes_its_captions_outdated(make_wav: MakeWav, fake: list[str]) -> None:
    """Also where size and name are the same; a copy with another time is the same audio."""
    audio = make_wav("data/a.wav", 3)
    batch = ["batch", audio.parent, "--preset", "brief", *fake]
    assert "1 captioned" in musicflamingo(*batch).stderr
    os.utime(audio, (1, 1))
    assert "0 tracks to caption, 1 complete" in musicflamingo(*batch, "--stale").stderr
    assert "earlier audio" not in musicflamingo(*batch).stderr
    make_wav("data/a.wav", 3, 880)
    kept = musicflamingo(*batch)
    assert "0 tracks to caption, 1 complete\n1 of the complete tracks have captions of an earlier" in kept.stderr
    assert kept.returncode == 0
    done = musicflamingo("status", audio.parent, "--preset", "brief", *fake, "--json")
    assert json.loads(done.stdout)["presets"]["brief"] == {"captioned": 0, "missing": 0, "outdated": 1}
    assert "1 captioned" in musicflamingo(*batch, "--stale").stderr
    assert "0 tracks to caption, 1 complete" in musicflamingo(*batch, "--stale").stderr


def test_another_model_of_the_same_name_makes_captions_outdated(
    make_wav: MakeWav, fake: list[str], random_models: Path, tmp_path: Path
) -> None:
    models = tmp_path / "models"
    shutil.copytree(random_models, models)
    batch = ["batch", make_wav("data/a.wav", 3).parent, "--preset", "brief", *fake, "--models-dir", models]
    assert "1 captioned" in musicflamingo(*batch).stderr
    assert "0 tracks to caption, 1 complete" in musicflamingo(*batch, "--stale").stderr
    data = bytearray((models / random_pair.LANGUAGE_MODEL_NAME).read_bytes())
    data[-1] ^= 1  # of the weights
    (models / random_pair.LANGUAGE_MODEL_NAME).write_bytes(data)
    assert "1 captioned" in musicflamingo(*batch, "--stale").stderr
    assert "0 tracks to caption, 1 complete" in musicflamingo(*batch, "--stale").stderr


def test_overwrite_does_not_depend_on_the_clock(make_wav: MakeWav, fake: list[str]) -> None:
    """Captions of a machine whose clock is ahead are regenerated like all others."""
    audio = make_wav("data/a.wav", 3)
    batch = ["batch", audio.parent, "--preset", "brief", *fake]
    assert "1 captioned" in musicflamingo(*batch).stderr
    sidecar = audio.with_suffix(".INFO")
    made = read_sidecar(sidecar)["music_flamingo_provenance"]["brief"]
    merge_sidecar(sidecar, {"music_flamingo_provenance": {"brief": {**made, "time": "2999-01-01T00:00:00.000+00:00"}}})
    assert "1 captioned" in musicflamingo(*batch, "--overwrite").stderr


def test_batch_dry_run_writes_nothing_and_needs_no_model(make_wav: MakeWav, tmp_path: Path) -> None:
    audio = make_wav("data/a.wav")
    done = musicflamingo("batch", audio.parent, "--dry-run", "--json", "--preset", "full", "--models-dir", tmp_path)
    assert done.returncode == 0
    assert json.loads(done.stdout) == {
        "track": str(audio),
        "sidecar": str(audio.with_suffix(".INFO")),
        "would_ask": ["full"],
    }
    assert list(audio.parent.iterdir()) == [audio]


def test_batch_shards_share_the_work(make_wav: MakeWav) -> None:
    data = make_wav("data/0.wav").parent
    for index in range(1, 12):
        (data / f"{index}.wav").touch()
    parts = [musicflamingo("batch", data, "--dry-run", "--shard", f"{i}/3").stdout.splitlines() for i in (1, 2, 3)]
    assert sorted(line for part in parts for line in part) == sorted(
        musicflamingo("batch", data, "--dry-run").stdout.splitlines()
    )
    assert sum(map(len, parts)) == 12


@pytest.mark.parametrize(
    ("arguments", "code", "said"),
    [
        (["caption", "{folder}"], 2, "musicflamingo batch"),
        (["caption", "{folder}/gone.wav"], 2, "no such file: "),
        (["batch", "/no/such/folder"], 2, "no such folder"),
        (["batch", "{folder}", "--shard", "5/4"], 2, "--shard 1/4"),
        (["batch", "{folder}", "--preset", "ful"], 2, "did you mean full?"),
        (["batch", "{folder}", "--ask", "x", "--preset", "full"], 2, "exclude each other"),
        (["batch", "{folder}", "--save-as", "x"], 2, "--ask"),
        (["batch", "{folder}", "--temperature", "9"], 2, "--temperature must be between 0 and 5"),
        (["caption", "{wav}", "--model", "Q6_K"], 4, "models pull Q6_K"),
        (["caption", "{wav}", "--model", "F32", "--engine", "magic"], 2, "embedded"),
        (["caption", "{wav}", "--model", "F32", "--llama-dir", "/nowhere"], 3, "musicflamingo build"),
        (["caption", "{wav}", "--config", "/no/config.yaml"], 2, "cannot be read"),
        (["caption", "{wav}", "--ask", "x", "--save", "--model", "F32"], 2, "--save-as"),
        (["prompts", "check", "/no/file.yaml"], 2, "prompts init"),
        (["prompts", "show", "nope"], 2, "prompts list"),
        (["models", "pull", "one/two:"], 2, "one/two:Q6_K"),
        (["models", "remove", "tiny", "--models-dir", "{folder}"], 2, "tiny model"),
        (["models", "check", "Q6_K", "--models-dir", "{folder}"], 4, "models pull Q6_K"),
        (["batch", "{folder}", "--stale", "--models-dir", "{folder}"], 4, "models pull auto"),
        (["batch", "{folder}", "--stale", "--dry-run", "--models-dir", "{folder}"], 4, "models pull auto"),
        (["status", "{folder}", "--model", "typo"], 2, "neither a quant nor a path"),
        (["nonsense"], 2, "nonsense"),
    ],
)
def test_bad_input_gets_one_error_and_its_exit_code(
    make_wav: MakeWav, fake: list[str], arguments: list[str], code: int, said: str
) -> None:
    wav = make_wav("empty/a.wav")
    filled = [part.format(folder=wav.parent, wav=wav) for part in arguments]
    options = [o for o in fake[:4] if o not in filled] if "--llama-dir" not in filled else fake[2:4]
    if filled[0] not in ("caption",) or "--models-dir" in filled:
        options = []
    done = musicflamingo(*filled, *options)
    assert done.returncode == code, done.stderr
    assert said in done.stderr
    assert "Traceback" not in done.stderr
    assert done.stdout == ""


@pytest.mark.parametrize(
    ("arguments", "named"),
    [
        (["caption", "nothere.flac"], "nothere.flac"),
        (["caption", "{wav}", "--engine", "magic"], "magic"),
        (["caption", "{wav}", "--preset", "fulll"], "fulll"),
        (["export", "parket", "{folder}"], "parket"),
        (["batch", "/no/such/folder"], "/no/such/folder"),
        (["demo", "nothere.flac"], "nothere.flac"),
    ],
)
def test_wrong_arguments_are_named_before_the_model(make_wav: MakeWav, arguments: list[str], named: str) -> None:
    """Where there is neither a model nor llama.cpp, the error is still about the argument."""
    wav = make_wav("empty/a.wav")
    filled = [part.format(folder=wav.parent, wav=wav) for part in arguments]
    done = musicflamingo(*filled, "--models-dir", wav.parent, "--llama-dir", wav.parent)
    assert done.returncode == 2
    assert named in done.stderr
    assert "models pull" not in done.stderr


def test_without_a_model_outdated_captions_are_not_known(make_wav: MakeWav) -> None:
    folder = make_wav("empty/a.wav").parent
    done = musicflamingo("status", folder, "--models-dir", folder, "--preset", "full")
    assert done.returncode == 0
    assert "0 captioned, 1 missing\n" in done.stdout
    assert "which captions are outdated is not known" in done.stderr
    assert "models pull auto" in done.stderr


def test_tiny_model_output_does_not_replace_real_captions(make_wav: MakeWav, fake: list[str]) -> None:
    wav = make_wav("data/a.wav")
    wav.with_suffix(".INFO").write_text('{"music_flamingo_full": "A caption of a real model."}')
    done = musicflamingo("caption", wav, "--preset", "full", "--preset", "structure", "--save", *fake)
    assert done.returncode == 0
    assert "tiny-model output never overwrites them" in done.stderr
    assert done.stdout.count("A warm track with drums.") == 2
    info = json.loads(wav.with_suffix(".INFO").read_text())
    assert info["music_flamingo_full"] == "A caption of a real model."
    assert info["music_flamingo_structure"] == "A warm track with drums."
    assert musicflamingo("batch", wav.parent, "--preset", "full", "--overwrite", *fake).returncode == 0
    assert read_sidecar(wav.with_suffix(".INFO"))["music_flamingo_full"] == "A warm track with drums."


def test_json_names_complete_tracks_too(make_wav: MakeWav, fake: list[str]) -> None:
    wav = make_wav("data/a.wav")
    wav.with_suffix(".INFO").write_text('{"music_flamingo_full": "A caption of a real model."}')
    for more in ([], ["--dry-run"]):
        done = musicflamingo("batch", wav.parent, "--preset", "full", "--json", *more, *fake)
        (row,) = (json.loads(line) for line in done.stdout.splitlines())
        assert (row["track"], row["skipped"], row["captions"]) == (str(wav), "complete", {})
        assert row["sidecar"] == str(wav.with_suffix(".INFO"))
        assert "0 tracks to caption, 1 complete" in done.stderr


def test_a_settings_file_and_the_environment(make_wav: MakeWav, fake: list[str], tmp_path: Path) -> None:
    config = tmp_path / "config.yaml"
    config.write_text(f"llama_dir: {fake[1]}\nmodels_dir: {fake[3]}\nmodel: F32\n")
    assert musicflamingo("caption", make_wav(), "--preset", "full", "--config", config).returncode == 0
    config.write_text("modle: tiny\n")
    done = musicflamingo("caption", make_wav(), "--config", config)
    assert done.returncode == 2
    assert "did you mean model?" in done.stderr


def test_common_options_before_and_after_the_command(make_wav: MakeWav, fake: list[str]) -> None:
    data = make_wav("data/a.wav").parent
    assert musicflamingo("-q", "batch", data, *fake).stderr.startswith("TINY MODEL")
    assert musicflamingo("batch", data, "-q", *fake).stderr == ""
    assert musicflamingo("--models-dir", fake[3], "models", "path", "F32").returncode == 0


def test_names_that_are_not_utf8_come_through_json(make_wav: MakeWav, fake: list[str]) -> None:
    data = make_wav("data/a.wav").parent
    odd = Path(os.fsdecode(os.fsencode(data) + b"/\xff\xfe.wav"))
    (data / "a.wav").rename(odd)
    done = musicflamingo("batch", data, "--json", *fake)
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["track"] == str(odd)
    assert odd.with_suffix(".INFO").exists()


def test_a_reader_that_goes_away_is_no_error(make_wav: MakeWav, fake: list[str]) -> None:
    audio = make_wav()
    command = f"{sys.executable} -m musicflamingo_cli caption '{audio}' '{audio}' {' '.join(fake)} | true"
    done = subprocess.run(["bash", "-c", command], capture_output=True, text=True, timeout=60)
    assert "Traceback" not in done.stderr
    assert "BrokenPipe" not in done.stderr


def test_prompts_commands(tmp_path: Path) -> None:
    listed = musicflamingo("prompts", "list")
    assert [line.split()[0] for line in listed.stdout.splitlines()][:2] == ["full", "technical"]
    assert musicflamingo("prompts", "show", "full").stdout.startswith("Describe this track in full detail")
    made = Path(musicflamingo("prompts", "init").stdout.strip())
    assert made.is_file()
    assert musicflamingo("prompts", "init").returncode == 2
    assert str(made) in musicflamingo("prompts", "path").stdout
    made.write_text("presets: {full: {prompt: 'Mine.', default: true}}")
    assert musicflamingo("prompts", "show", "full").stdout == "Mine.\n"
    assert musicflamingo("prompts", "check").returncode == 0
    assert Path(musicflamingo("prompts", "init", "--dataset", tmp_path).stdout.strip()).parent == tmp_path


def test_every_command_reads_the_presets_file_of_the_settings(make_wav: MakeWav, tmp_path: Path) -> None:
    audio, own = make_wav("music/a.wav"), tmp_path / "mine.yaml"
    own.write_text("presets:\n  mine: {prompt: Mine., default: true}\n")
    (tmp_path / "settings.yaml").write_text(f"prompts: {own}\n")
    audio.with_suffix(".INFO").write_text('{"music_flamingo_mine": "A calm piece."}')
    named = ("--config", tmp_path / "settings.yaml")
    assert str(own) in musicflamingo("prompts", "path", *named).stdout
    assert "mine" in musicflamingo("prompts", "list", *named).stdout
    assert musicflamingo("prompts", "show", "mine", *named).stdout == "Mine.\n"
    assert str(own) in musicflamingo("prompts", "check", *named).stdout
    page = tmp_path / "page.html"
    assert musicflamingo("report", audio.parent, "--out", page, "--no-spectrograms", *named).returncode == 0
    assert "A calm piece." in page.read_text()
    table = tmp_path / "out.csv"
    audio.with_suffix(".INFO").write_text('{"music_flamingo_mine": "A calm piece.", "music_flamingo_full": "It."}')
    assert musicflamingo("export", "csv", audio.parent, table, *named).returncode == 0
    assert "A calm piece." in table.read_text()


def test_prompts_edit_opens_the_editor_and_checks(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    editor = tmp_path / "editor"
    editor.write_text("#!/bin/sh\necho 'presets: {full: {promt: x}}' > \"$1\"\n")
    editor.chmod(0o755)
    monkeypatch.setenv("VISUAL", str(editor))
    done = musicflamingo("prompts", "edit")
    assert done.returncode == 2
    assert "did you mean prompt?" in done.stderr


def test_the_tiny_model_is_always_there() -> None:
    pulled = musicflamingo("models", "pull", "tiny", "--json")
    assert all(Path(path).is_file() for path in json.loads(pulled.stdout))
    assert "the tiny model" in musicflamingo("models", "check", "tiny").stdout
    assert "not Music Flamingo" not in musicflamingo("models", "check", "tiny").stdout
    assert musicflamingo("models", "remove", "tiny", "--yes").returncode == 2


def test_a_model_of_another_name_is_checked_and_called_so(tmp_path: Path, random_models: Path) -> None:
    for name in (random_pair.LANGUAGE_MODEL_NAME, random_pair.PROJECTOR_NAME):
        data = (random_models / name).read_bytes()
        changed = data if "mmproj" in name else data.replace(b"musicflamingo", b"somethingelse")
        (tmp_path / name.replace("musicflamingo-", "")).write_bytes(changed.replace(b"<sound>", b"<noise>"))
    path = next(path for path in tmp_path.iterdir() if "mmproj" not in path.name)
    done = musicflamingo("models", "check", path)
    assert "tokens, not Music Flamingo, ok" in done.stdout, done.stderr


def test_models_commands(tmp_path: Path) -> None:
    options = ["--models-dir", str(tmp_path)]
    listed = [json.loads(line) for line in musicflamingo("models", "list", "--json", *options).stdout.splitlines()]
    quants = [row for row in listed if "quant" in row]
    assert [row["quant"] for row in quants] == ["Q8_0", "Q6_K", "Q4_K_M", "IQ3_M"]
    assert [row["quant"] for row in quants if row["recommended"]] == ["Q6_K"]
    assert all(row["path"] is None and row["memory_bytes"] > row["bytes"] for row in listed)
    assert musicflamingo("models", "check", *options).returncode == 4
    random_pair.write_random_pair(tmp_path)
    assert ", ok" in musicflamingo("models", "check", *options).stdout
    assert "F32" in musicflamingo("models", "list", *options).stdout
    refused = musicflamingo("models", "remove", "F32", *options)
    assert (refused.returncode, "--yes" in refused.stderr) == (2, True)
    assert musicflamingo("models", "remove", "F32", "--yes", *options).returncode == 0
    assert not list(tmp_path.glob("*.gguf"))


def test_models_check_goes_on_after_a_bad_one(tmp_path: Path) -> None:
    options = ["--models-dir", str(tmp_path)]
    random_pair.write_random_pair(tmp_path)
    (tmp_path / "a-broken.Q6_K.gguf").write_bytes((tmp_path / "random.F32.gguf").read_bytes()[:9000])
    done = musicflamingo("models", "check", "--json", *options)
    assert done.returncode == 4
    assert [json.loads(line)["good"] for line in done.stdout.splitlines()] == [False, True]


def test_removing_one_model_leaves_the_projector_to_the_other(tmp_path: Path) -> None:
    options = ["--models-dir", str(tmp_path)]
    random_pair.write_random_pair(tmp_path)
    (tmp_path / "x.Q6_K.gguf").write_bytes((tmp_path / "random.F32.gguf").read_bytes())
    removed = musicflamingo("models", "remove", "Q6_K", "--yes", *options)
    assert removed.stdout.split() == [str(tmp_path / "x.Q6_K.gguf")]
    outside = tmp_path.parent / f"{tmp_path.name}.gguf"
    outside.write_bytes((tmp_path / "random.F32.gguf").read_bytes())
    assert "delete it yourself" in musicflamingo("models", "remove", outside, "--yes", *options).stderr
    assert outside.exists()
    (tmp_path / "models").mkdir()
    roundabout = f"{tmp_path}/models/../{(tmp_path / 'random.F32.gguf').name}"
    refused = musicflamingo("models", "remove", roundabout, "--yes", "--models-dir", str(tmp_path / "models"))
    assert "delete it yourself" in refused.stderr


def test_removing_the_last_model_removes_its_projector(tmp_path: Path) -> None:
    random_pair.write_random_pair(tmp_path)
    random_pair.write_random_pair(tmp_path / "owner--model-GGUF")
    removed = musicflamingo("models", "remove", "F32", "--yes", "--models-dir", str(tmp_path))
    assert len(removed.stdout.split()) == 2
    assert [path.parent.name for path in tmp_path.rglob("*.gguf")] == ["owner--model-GGUF"] * 2


def test_settings_beside_a_dataset(make_wav: MakeWav, fake: list[str]) -> None:
    """They say how its tracks are captioned; they name no programs or files, since datasets come from others."""
    audio = make_wav("data/a.wav")
    settings = audio.parent / "musicflamingo-config.yaml"
    settings.write_text("seed: 7\n")
    musicflamingo("batch", audio.parent, "--preset", "brief", *fake)
    assert read_sidecar(audio.with_suffix(".INFO"))["music_flamingo_provenance"]["brief"]["seed"] == 7
    for evil in ("llama_dir: /evil", "model: ./evil.bin", "model: evil.gguf", "model: ~/x", "mmproj: x"):
        settings.write_text(f"{evil}\n")
        refused = musicflamingo("batch", audio.parent, "--overwrite", *fake)
        assert (refused.returncode, "may not name files" in refused.stderr) == (2, True), evil
    settings.write_text("seed: 8\n")
    both = musicflamingo("batch", audio.parent, make_wav("other/b.wav").parent, *fake)
    assert (both.returncode, "its own folder only" in both.stderr) == (2, True)


def test_help_of_every_command() -> None:
    for command in (
        [],
        ["caption"],
        ["compare"],
        ["batch"],
        ["demo"],
        ["build"],
        ["prompts"],
        ["models"],
        ["models", "check"],
        ["doctor"],
    ):
        done = musicflamingo(*command, "--help")
        assert done.returncode == 0
        assert "Usage" in done.stdout


@pytest.mark.parametrize(
    ("command", "shown"),
    [
        (
            "caption",
            ("[default: auto]", "[default: 42]", "[default: 0.7]", "[default: as many as fit]", "[default: 900]"),
        ),
        ("export", ("[default: full]", "[default: link]", "[default: 1000]", "[default: named after DIR, here]")),
        ("report", ("[default: those marked so]", "[default: NAME-report.html, here]")),
        ("demo", ("[default: synthesised songs]",)),
        ("models check", ("[default: all that are installed]",)),
        ("prompts check", ("[default: those in force]",)),
    ],
)
def test_help_shows_the_defaults(command: str, shown: tuple[str, ...]) -> None:
    """Rich takes words in brackets for styles, and swallows them."""
    text = CliRunner(env={"COLUMNS": "200", "TERMINAL_WIDTH": "200"}).invoke(app, [*command.split(), "--help"]).stdout
    words = " ".join(re.sub(r"[│\s]+", " ", text).split())
    assert all(default in words for default in shown)
