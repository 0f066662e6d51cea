"""`models pull` of checkpoints from a fake hub on loopback, in a separate process; then list, check, path, remove."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from musicflamingo_cli.models.pull import fetch_checkpoint, find_checkpoint_files
from tests.conftest import MakeWav
from tests.fakes.checkpoints import put_checkpoint, put_generator
from tests.fakes.hub import Hub

BEST, THINKS, QWEN, SHARDED = (
    "nvidia/music-flamingo-2601-hf",
    "nvidia/music-flamingo-think-2601-hf",
    "some/qwen",
    "some/tune",
)
FOLDER = "nvidia--music-flamingo-2601-hf"
WEIGHTS = "model.safetensors"
LOADED = {
    "LICENSE",
    "chat_template.jinja",
    "config.json",
    "processor_config.json",
    "tokenizer.json",
    "tokenizer_config.json",
    WEIGHTS,
}
# What a repository may also hold, and nothing here needs.
SURPLUS = dict.fromkeys(
    [
        ".gitattributes",
        "README.md",
        "modeling_custom.py",
        "pytorch_model.bin",
        "flax_model.msgpack",
        "consolidated.pth",
        "consolidated.safetensors",
        "model.Q6_K.gguf",
        "model.onnx",
        "think/adapter_model.safetensors",
        "onnx/config.json",
    ],
    b"surplus",
)
Run = Callable[..., subprocess.CompletedProcess[str]]


def files_of(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir()}


@pytest.fixture
def hub(tmp_path: Path) -> Hub:
    """Return a hub with two checkpoints, a sharded one, and one of another kind."""
    best = {**files_of(put_checkpoint(tmp_path / "1")), **SURPLUS, "LICENSE": b"Noncommercial"}
    sharded = files_of(put_checkpoint(tmp_path / "2", parts=3))
    foreign = files_of(put_checkpoint(tmp_path / "3", "qwen2"))
    return Hub({BEST: best, THINKS: dict(best), SHARDED: sharded, QWEN: foreign, "some/plain": {"config.json": b"{}"}})


@pytest.fixture
def models(tmp_path: Path) -> Path:
    return tmp_path / "models"


def environment(hub: Hub, tmp_path: Path, **more: str) -> dict[str, str]:
    kept = {name: value for name, value in os.environ.items() if not name.startswith("HF_")}
    return {**kept, **hub.environment(tmp_path / "hf"), "MUSICFLAMINGO_MODELS_DIR": str(tmp_path / "models"), **more}


@pytest.fixture
def run(hub: Hub, tmp_path: Path) -> Run:
    """``run("pull", NAME)`` runs `musicflamingo models`."""

    def models(*arguments: str, **more: str) -> subprocess.CompletedProcess[str]:
        command = [sys.executable, "-m", "musicflamingo_cli", "models", *arguments]
        env = environment(hub, tmp_path, **more)
        return subprocess.run(
            command, env=env, capture_output=True, text=True, timeout=60, stdin=subprocess.DEVNULL, cwd=tmp_path
        )

    return models


def test_a_checkpoint_is_pulled_without_surplus_files(hub: Hub, run: Run, models: Path) -> None:
    with hub:
        done = run("pull", "music-flamingo-2601-hf")
        assert done.returncode == 0, done.stderr
        assert done.stdout.strip() == str(models / FOLDER)
        assert {path.name for path in (models / FOLDER).iterdir()} == LOADED
        assert all((models / FOLDER / name).read_bytes() == hub.repositories[BEST][name] for name in LOADED)
        assert done.stderr.splitlines()[0] == f"{BEST}: 7 files, 0.0 GB; licence: NVIDIA OneWay Noncommercial License"
        assert [path.name for path in models.iterdir() if path.name != ".pull.lock"] == [FOLDER]
        assert len(hub.downloads) == 1
        again = run("pull", BEST)
        assert again.returncode == 0, again.stderr
        assert "verifying its checksum" in again.stderr
        assert len(hub.downloads) == 1
        assert sorted(hub.small_downloads) == sorted(LOADED - {WEIGHTS})


def test_all_parts_of_the_weights_are_pulled(hub: Hub, run: Run, models: Path) -> None:
    with hub:
        done = run("pull", SHARDED)
    assert done.returncode == 0, done.stderr
    assert "licence: see its model card" in done.stderr
    assert len(list((models / "some--tune").glob("model-0000?-of-00003.safetensors"))) == 3


def test_a_killed_pull_leaves_no_checkpoint_and_is_resumed(hub: Hub, run: Run, models: Path, tmp_path: Path) -> None:
    header = b'{"a":{"dtype":"U8","shape":[30000000],"data_offsets":[0,30000000]}}'
    hub.repositories[BEST][WEIGHTS] = len(header).to_bytes(8, "little") + header + bytes(30_000_000)
    hub.cut_after = 12_000_000
    with hub:
        command = [sys.executable, "-m", "musicflamingo_cli", "models", "pull", BEST]
        child = subprocess.Popen(command, env=environment(hub, tmp_path), stderr=subprocess.DEVNULL)
        deadline = time.monotonic() + 30
        while not any(path.stat().st_size >= 10_000_000 for path in models.rglob(".*.part/.*.part")):
            assert time.monotonic() < deadline
            time.sleep(0.01)
        child.send_signal(signal.SIGKILL)
        child.wait()
        assert [path for path in models.iterdir() if not path.name.startswith(".")] == []
        listed = [json.loads(line) for line in run("list", "--json").stdout.splitlines()]
        assert [row["path"] for row in listed] == [None] * len(listed)
        assert run("check", BEST).returncode == 4
        sent = len(hub.downloads)
        hub.cut_after = 0
        assert run("pull", BEST).returncode == 0
    assert int(hub.downloads[sent].rpartition("bytes=")[2].rstrip("-")) >= 10_000_000, "it started over"
    assert (models / FOLDER / WEIGHTS).stat().st_size == 30_000_000 + 8 + len(header)
    assert not list(models.glob(".*.part"))


def test_an_incomplete_download_of_another_commit_is_deleted(hub: Hub, run: Run, models: Path) -> None:
    old = models / f".{FOLDER}.0123456789ab.part"
    old.mkdir(parents=True)
    (old / "config.json").write_text("old")
    with hub:
        assert run("pull", BEST).returncode == 0
    assert not old.exists()


def test_wrong_bytes_leave_no_checkpoint(hub: Hub, run: Run, models: Path) -> None:
    with hub:
        hub.flip = True
        done = run("pull", BEST)
        assert done.returncode == 4
        assert "model.safetensors arrived with wrong bytes" in done.stderr
        assert not (models / FOLDER).exists()
        hub.flip = False
        assert run("pull", BEST).returncode == 0


def test_a_truncated_file_on_the_hub_is_no_checkpoint(hub: Hub, run: Run, models: Path) -> None:
    hub.repositories[BEST][WEIGHTS] = hub.repositories[BEST][WEIGHTS][:-1]
    with hub:
        done = run("pull", BEST)
    assert done.returncode == 4
    assert "is cut short" in done.stderr
    assert not (models / FOLDER).exists()


@pytest.mark.parametrize(
    ("arguments", "code", "message"),
    [
        ([QWEN], 4, "some/qwen is a checkpoint of type 'qwen2'; supported: audioflamingo3, musicflamingo"),
        (["some/plain"], 4, "holds no checkpoint"),
        (["no/where"], 4, "the hub has no no/where"),
        ([BEST, "--revision", "gone"], 4, "no revision gone"),
        ([BEST, "--source", "some/where"], 2, "leave --source and --imatrix out"),
        ([BEST, "--imatrix"], 2, "leave --source and --imatrix out"),
    ],
)
def test_what_cannot_be_pulled(hub: Hub, run: Run, models: Path, arguments: list[str], code: int, message: str) -> None:
    with hub:
        done = run("pull", *arguments)
    assert (done.returncode, message in done.stderr) == (code, True), done.stderr
    assert hub.downloads == []  # the weights of a model that cannot run are not downloaded first
    assert not models.exists() or {path.name for path in models.iterdir()} <= {".pull.lock"}


def test_a_folder_of_other_files_is_left_alone(hub: Hub, run: Run, models: Path) -> None:
    (models / FOLDER).mkdir(parents=True)
    (models / FOLDER / "mine.txt").write_text("mine")
    with hub:
        done = run("pull", BEST)
    assert done.returncode == 4
    assert "exists and is not a checkpoint" in done.stderr
    assert hub.downloads == []
    assert [path.name for path in (models / FOLDER).iterdir()] == ["mine.txt"]


def test_too_small_a_disk_is_found_before_any_weights(
    hub: Hub, models: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import shutil

    from huggingface_hub import constants

    from musicflamingo_cli.errors import ModelError

    usage = shutil.disk_usage(tmp_path)
    monkeypatch.setattr(shutil, "disk_usage", lambda path: usage._replace(free=100_000_000))
    with hub:
        monkeypatch.setattr(constants, "ENDPOINT", f"http://127.0.0.1:{hub.port}")
        monkeypatch.setattr(
            constants, "HUGGINGFACE_CO_URL_TEMPLATE", constants.ENDPOINT + "/{repo_id}/resolve/{revision}/{filename}"
        )
        with pytest.raises(ModelError, match=r"0\.3 GB are needed in .*, 0\.1 GB are free"):
            fetch_checkpoint(find_checkpoint_files(BEST, models))
    assert hub.downloads == hub.small_downloads == []


def test_offline_takes_a_checkpoint_of_the_hubs_cache(hub: Hub, run: Run, models: Path, tmp_path: Path) -> None:
    with hub:  # filled by huggingface_hub itself
        names = sorted(LOADED)
        code = f"from huggingface_hub import hf_hub_download as get\nfor name in {names}: print(get({BEST!r}, name))"
        env = environment(hub, tmp_path)
        done = subprocess.run([sys.executable, "-c", code], env=env, check=True, capture_output=True, text=True)
    snapshot = str(Path(done.stdout.split()[0]).parent)
    assert run("path", BEST).stdout.strip() == snapshot  # it needs no pull to be used
    assert f"{BEST}: musicflamingo, 32768 tokens, 1200 s of audio, ok" in run("check").stdout
    kept = run("remove", BEST, "--yes")
    assert kept.returncode == 2
    assert f"hf cache rm model/{BEST}" in kept.stderr
    assert Path(snapshot, WEIGHTS).exists()
    offline = run("pull", BEST, HF_HUB_OFFLINE="1", HF_ENDPOINT="http://127.0.0.1:9")
    assert offline.returncode == 0, offline.stderr
    assert (models / FOLDER / WEIGHTS).stat().st_ino == Path(snapshot, WEIGHTS).resolve().stat().st_ino


def test_list_path_check_and_remove(hub: Hub, run: Run, models: Path) -> None:
    put_checkpoint(models / "my-tune", "audioflamingo3")
    with hub:
        assert run("pull", THINKS).returncode == 0
    rows = [json.loads(line) for line in run("list", "--json").stdout.splitlines()]
    kinds = ("quant", "checkpoint", "generator")
    quants, checkpoints, generators = ([row for row in rows if key in row] for key in kinds)
    assert rows == [*quants, *checkpoints, *generators]
    by_name = {row["checkpoint"]: row for row in checkpoints}
    assert next(iter(by_name)) == BEST
    assert by_name[BEST]["bytes"] == 16_500_000_000
    assert 18e9 < by_name[BEST]["memory_bytes"] < 21e9
    assert by_name[BEST]["path"] is None
    folder = models / "nvidia--music-flamingo-think-2601-hf"
    thinks = by_name[THINKS]
    assert (thinks["path"], thinks["bytes"]) == (str(folder), (folder / WEIGHTS).stat().st_size)
    assert (thinks["max_seconds"], thinks["reasons"], thinks["licence"]) == (
        1200,
        True,
        "NVIDIA OneWay Noncommercial License",
    )
    assert by_name["my-tune"]["path"] == str(models / "my-tune")
    assert f"{THINKS}" in run("list").stdout

    assert run("path", "music-flamingo-think-2601-hf").stdout.strip() == str(folder)
    checked = [json.loads(line) for line in run("check", "--json").stdout.splitlines()]
    assert {row["checkpoint"]: row["max_seconds"] for row in checked} == {THINKS: 1200, "my-tune": 600}
    (folder / WEIGHTS).write_bytes((folder / WEIGHTS).read_bytes()[:-1])
    bad = run("check")
    assert bad.returncode == 4
    assert f"{WEIGHTS} is cut short" in bad.stderr
    assert "my-tune: audioflamingo3" in bad.stdout

    asked = run("remove", THINKS)
    assert asked.returncode == 2
    assert str(folder) in asked.stderr
    removed = run("remove", THINKS, "--yes")
    assert removed.stdout.strip() == str(folder)
    assert not folder.exists()
    assert run("remove", str(models / "my-tune"), "--yes").returncode == 0
    assert [path.name for path in models.iterdir()] == [".pull.lock"]


def test_remove_stays_inside_the_models_folder(run: Run, models: Path, tmp_path: Path) -> None:
    outside = put_checkpoint(tmp_path / "elsewhere")
    models.mkdir()
    (models / "linked").symlink_to(outside)
    for name in (str(outside), f"{models}/../elsewhere", "./elsewhere"):
        refused = run("remove", name, "--yes")
        assert refused.returncode == 2, refused.stderr
        assert f"rm -r '{outside}'" in refused.stderr
    assert run("remove", f"{models}/linked", "--yes").returncode == 0  # the link only
    assert not (models / "linked").exists()
    assert (outside / WEIGHTS).exists()


MUSICGEN = "facebook/musicgen-small"


def test_a_generator_is_pulled_listed_and_removed(hub: Hub, run: Run, models: Path, tmp_path: Path) -> None:
    files = files_of(put_generator(tmp_path / "musicgen", parts=2))
    small = {"generation_config.json": b"{}", "preprocessor_config.json": b"{}", "spiece.model": b"model"}
    hub.repositories[MUSICGEN] = {**files, **small, **SURPLUS, "state_dict.bin": b"surplus"}
    folder = models / "facebook--musicgen-small"
    with hub:
        done = run("pull", "musicgen-small")
    assert done.returncode == 0, done.stderr
    assert "licence: CC-BY-NC-4.0" in done.stderr
    assert {path.name for path in folder.iterdir()} == {*files, *small}
    rows = [json.loads(line) for line in run("list", "--json").stdout.splitlines()]
    generators = {row["generator"]: row for row in rows if "generator" in row}
    assert len(generators) == 8
    assert generators[MUSICGEN]["path"] == str(folder)
    assert generators["facebook/musicgen-large"]["path"] is None
    assert 13e9 < generators["facebook/musicgen-large"]["bytes"] < 14e9
    assert all(row["licence"] == "CC-BY-NC-4.0" for row in generators.values())
    assert "CC-BY-NC-4.0" in run("list").stdout
    assert run("path", "musicgen-small").stdout.strip() == str(folder)
    checked = [json.loads(line) for line in run("check", "--json").stdout.splitlines()]
    assert [(row["generator"], row["rate"], row["channels"], row["good"]) for row in checked] == [
        (MUSICGEN, 32_000, 1, True)
    ]
    refused = run("check", "musicgen-large")
    assert refused.returncode == 4
    assert "musicflamingo models pull facebook/musicgen-large" in refused.stderr
    part = folder / "model-00002-of-00002.safetensors"
    part.write_bytes(part.read_bytes()[:-1])
    assert "is cut short" in run("check").stderr
    part.unlink()
    assert f"lacks {part.name}" in run("check", MUSICGEN).stderr
    assert run("remove", MUSICGEN, "--yes").stdout.strip() == str(folder)
    assert not folder.exists()


def test_a_generator_writes_no_captions(run: Run, models: Path, make_wav: MakeWav) -> None:
    put_generator(models / "facebook--musicgen-small")
    command = [sys.executable, "-m", "musicflamingo_cli", "caption", str(make_wav()), "--models-dir", str(models)]
    done = subprocess.run([*command, "--model", MUSICGEN], capture_output=True, text=True)
    assert done.returncode == 4
    assert "makes music; it writes no captions\n  musicflamingo listen --model" in done.stderr
