"""Checkpoints: which folder a name means, and what a damaged or foreign one is reported as."""

from __future__ import annotations

import json
import os
import shutil
import struct
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from safetensors.numpy import save_file

from musicflamingo_cli.errors import ModelError
from musicflamingo_cli.models.catalog import load_catalog
from musicflamingo_cli.models.checkpoints import (
    check_checkpoint,
    find_checkpoint,
    installed_checkpoints,
    is_checkpoint_name,
    name_of,
)
from tests.fakes.checkpoints import TEXT, put_checkpoint, put_json

BEST, THINKS = "nvidia/music-flamingo-2601-hf", "nvidia/music-flamingo-think-2601-hf"
WEIGHTS = "model.safetensors"


def put_cached(cache: Path, repository: str, model_type: str = "musicflamingo") -> Path:
    """Put a checkpoint into the hub's cache as huggingface_hub lays it out, and return its snapshot."""
    top = cache / f"models--{repository.replace('/', '--')}"
    blobs = put_checkpoint(top / "blobs", model_type)
    snapshot = top / "snapshots" / "c0ffee"
    snapshot.mkdir(parents=True)
    for blob in blobs.iterdir():
        (snapshot / blob.name).symlink_to(Path("../../blobs") / blob.name)
    (top / "refs").mkdir()
    (top / "refs" / "main").write_text("c0ffee")
    return snapshot


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The hub's cache, of this test's own."""
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path / "hub"))
    return tmp_path / "hub"


def test_the_catalog_lists_the_best_for_music_first() -> None:
    found = load_catalog().checkpoints
    assert [each.short_name for each in found] == [
        "music-flamingo-2601-hf",
        "music-flamingo-think-2601-hf",
        "audio-flamingo-next-hf",
        "music-flamingo-hf",
        "audio-flamingo-3-hf",
    ]
    assert [each.max_seconds for each in found] == [1200, 1200, 1800, 600, 600]
    assert [each.reasons for each in found] == [False, True, False, False, False]
    assert {each.size for each in found} == {16_500_000_000}


@pytest.mark.parametrize(
    ("name", "is_one"),
    [
        (BEST, True),
        ("music-flamingo-2601-hf", True),
        ("some/where", True),
        ("some/where:Q6_K", False),
        ("some/where.gguf", False),
        ("Q6_K", False),
        ("auto", False),
        ("tiny", False),
        ("mine", False),  # a plain name, which a dataset's settings may hold, is no path
        ("./mine", True),
        ("sub/mine", True),
        ("./empty", False),
        ("../etc/passwd", False),
        ("~nobody-of-that-name/x", False),
    ],
)
def test_which_names_mean_a_checkpoint(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str, is_one: bool
) -> None:
    for folder in ("mine", "sub/mine", "tiny", "auto"):
        put_checkpoint(tmp_path / folder)
    (tmp_path / "empty").mkdir()
    monkeypatch.chdir(tmp_path)
    assert is_checkpoint_name(name) is is_one


def test_what_is_read_of_a_checkpoint(tmp_path: Path) -> None:
    found = check_checkpoint(put_checkpoint(tmp_path / "nvidia--music-flamingo-think-2601-hf", parts=3))
    assert (found.name, found.label) == (THINKS, "hf_music-flamingo-think-2601-hf")
    assert (found.model_type, found.context_length, found.kv_bytes_per_token) == ("musicflamingo", 32768, 57344)
    assert (found.max_seconds, found.reasons, found.is_tiny) == (1200, True, False)
    assert found.size == sum(file.stat().st_size for file in found.folder.glob("*.safetensors"))


@pytest.mark.parametrize(
    ("folder", "model_type", "max_audio_len", "seconds"),
    [
        ("mine", "musicflamingo", None, 1200),
        ("mine", "audioflamingo3", None, 600),
        ("mine", "musicflamingo", 900.5, 900.5),
        ("mine", "musicflamingo", 7200, 1800),  # more than any model was trained on
        ("nvidia--audio-flamingo-next-hf", "musicflamingo", None, 1800),
        ("nvidia--audio-flamingo-next-hf", "musicflamingo", 1200, 1200),
    ],
)
def test_the_longest_audio(
    tmp_path: Path, folder: str, model_type: str, max_audio_len: float | None, seconds: float
) -> None:
    put_checkpoint(tmp_path / folder, model_type, max_audio_len=max_audio_len)
    assert check_checkpoint(tmp_path / folder).max_seconds == seconds


def test_a_short_configuration_means_the_defaults_of_its_class(tmp_path: Path) -> None:
    folder = put_checkpoint(tmp_path / "mine")
    put_json(folder / "config.json", {"model_type": "musicflamingo", "text_config": {"num_key_value_heads": 4}})
    found = check_checkpoint(folder)
    assert (found.context_length, found.kv_bytes_per_token) == (32768, 32 * 4 * 128 * 2 * 2)


def test_names_of_folders(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert name_of(Path("models/nvidia--music-flamingo-2601-hf")) == BEST
    assert name_of(Path("hub/models--nvidia--music-flamingo-2601-hf/snapshots/c0ffee")) == BEST
    assert name_of(Path("models/my-tune")) == "my-tune"
    monkeypatch.chdir(put_checkpoint(tmp_path / "my-tune"))
    assert name_of(Path()) == "my-tune"


def test_where_a_checkpoint_is_looked_for(tmp_path: Path, cache: Path) -> None:
    models = tmp_path / "models"
    with pytest.raises(ModelError, match=f"no checkpoint {BEST} in") as caught:
        find_checkpoint("music-flamingo-2601-hf", models)
    assert f"models pull {BEST}" in caught.value.hint
    cached = put_cached(cache, BEST)
    assert find_checkpoint(BEST, models) == cached
    assert check_checkpoint(cached).name == BEST
    own = put_checkpoint(models / "nvidia--music-flamingo-2601-hf")
    assert find_checkpoint("music-flamingo-2601-hf", models) == own
    assert find_checkpoint(str(cached), models) == cached


def test_a_revision_file_cannot_lead_out_of_the_cache(tmp_path: Path, cache: Path) -> None:
    put_cached(cache, BEST)
    put_checkpoint(tmp_path / "secret")
    (cache / "models--nvidia--music-flamingo-2601-hf" / "refs" / "main").write_text("../../../secret")
    with pytest.raises(ModelError, match="no checkpoint"):
        find_checkpoint(BEST, tmp_path)


def test_installed_checkpoints_in_their_order(tmp_path: Path, cache: Path) -> None:
    models = tmp_path / "models"
    assert installed_checkpoints(models) == []
    mine, old, hidden, foreign = (
        put_checkpoint(models / name, kind)
        for name, kind in (
            ("a-mine", "musicflamingo"),
            ("nvidia--audio-flamingo-3-hf", "audioflamingo3"),
            (".nvidia--music-flamingo-2601-hf.part", "musicflamingo"),
            ("some--qwen", "qwen2"),
        )
    )
    (models / "theirs-GGUF").mkdir()
    best, incomplete = put_cached(cache, BEST), put_cached(cache, THINKS)
    (incomplete / WEIGHTS).unlink()
    assert installed_checkpoints(models) == [best, old, mine]
    assert {hidden, foreign}.isdisjoint(installed_checkpoints(models))
    own = shutil.copytree(old, models / "nvidia--music-flamingo-2601-hf")
    assert installed_checkpoints(models) == [own, old, mine]  # the cache's copy is not a second one


@pytest.mark.parametrize(
    "name", ["processor_config.json", "tokenizer.json", "tokenizer_config.json", "model-00002-of-00003.safetensors"]
)
def test_a_missing_file_is_named(tmp_path: Path, name: str) -> None:
    folder = put_checkpoint(tmp_path / "nvidia--music-flamingo-2601-hf", parts=3)
    (folder / name).unlink()
    with pytest.raises(ModelError, match=f"lacks {name}") as caught:
        check_checkpoint(folder)
    assert f"musicflamingo models pull {BEST}" in caught.value.hint


def test_all_missing_files_are_named_at_once(tmp_path: Path) -> None:
    folder = put_checkpoint(tmp_path / "mine")
    for name in (WEIGHTS, "tokenizer.json"):
        (folder / name).unlink()
    with pytest.raises(ModelError, match=r"lacks tokenizer.json, model.safetensors"):
        check_checkpoint(folder)
    (folder / "config.json").unlink()
    with pytest.raises(ModelError, match=r"lacks config.json"):
        check_checkpoint(folder)
    with pytest.raises(ModelError, match="no checkpoint at"):
        check_checkpoint(tmp_path / "gone")


@pytest.mark.parametrize("place", ["chat_template.jinja", "tokenizer_config.json", "processor_config.json", ""])
def test_the_chat_template_may_be_in_three_places(tmp_path: Path, place: str) -> None:
    folder = put_checkpoint(tmp_path / "mine")
    (folder / "chat_template.jinja").unlink()
    if not place:
        with pytest.raises(ModelError, match="no chat template"):
            check_checkpoint(folder)
        return
    put_json(folder / place, {"chat_template": "{{ messages }}"})
    assert check_checkpoint(folder)


@pytest.mark.parametrize("kept", [0, 5, 8, 30, -1])
@pytest.mark.parametrize("parts", [1, 2])
def test_a_truncated_download_is_named(tmp_path: Path, kept: int, parts: int) -> None:
    folder = put_checkpoint(tmp_path / "nvidia--music-flamingo-2601-hf", parts=parts)
    weights = max(folder.glob("*.safetensors"))
    weights.write_bytes(weights.read_bytes()[:kept])
    with pytest.raises(ModelError, match=f"{weights.name} is cut short") as caught:
        check_checkpoint(folder)
    assert f"musicflamingo models pull {BEST}" in caught.value.hint


def safetensors(header: bytes, length: int | None = None) -> bytes:
    return struct.pack("<Q", len(header) if length is None else length) + header + bytes(8)


@pytest.mark.parametrize(
    "content",
    [
        b"GGUF" + bytes(2000),
        safetensors(b"{}"),
        safetensors(b"[]"),
        safetensors(b"not json"),
        safetensors(b'{"a": {}}'),
        safetensors(b'{"a": {"data_offsets": [0, 1e999]}}'),
        safetensors(b'{"a": {"data_offsets": [0, 99]}}'),
        safetensors(b'{"a": {"data_offsets": [0, 4]}}'),
        safetensors(b"[" * 100_000),
        safetensors(b"{}", 1 << 63),
    ],
)
def test_damaged_weights_are_a_model_error(tmp_path: Path, content: bytes) -> None:
    folder = put_checkpoint(tmp_path / "mine")
    (folder / WEIGHTS).write_bytes(content)
    with pytest.raises(ModelError, match=WEIGHTS) as caught:
        check_checkpoint(folder)
    assert caught.value.hint


@pytest.mark.parametrize("part", ["../secret.safetensors", "/etc/secret.safetensors", "model.bin", 7, None])
def test_an_index_cannot_name_other_files(tmp_path: Path, part: Any) -> None:
    save_file({"a": np.zeros(1, np.float16)}, tmp_path / "secret.safetensors")
    folder = put_checkpoint(tmp_path / "mine")
    (folder / WEIGHTS).unlink()
    put_json(folder / "model.safetensors.index.json", {"weight_map": {"a": part}})
    with pytest.raises(ModelError, match="lists no parts"):
        check_checkpoint(folder)


@pytest.mark.parametrize(
    ("config", "message"),
    [
        ({}, "type None; supported: audioflamingo3, musicflamingo"),
        ({"model_type": "qwen2_audio", "text_config": TEXT}, "type 'qwen2_audio'"),
        ({"model_type": ["musicflamingo"], "text_config": TEXT}, "supported"),
        ({"model_type": "musicflamingo"}, "no text_config"),
        ({"model_type": "musicflamingo", "text_config": "large"}, "no text_config"),
        *(
            ({"model_type": "musicflamingo", "text_config": {**TEXT, key: value}}, f"has {key}")
            for key, value in (
                ("max_position_embeddings", 0),
                ("max_position_embeddings", 10**30),
                ("max_position_embeddings", True),
                ("num_hidden_layers", "28"),
                ("num_key_value_heads", -4),
                ("num_attention_heads", 0),
                ("hidden_size", None),
                ("head_dim", 1.5),
            )
        ),
    ],
)
def test_an_absurd_configuration_is_a_model_error(tmp_path: Path, config: dict[str, Any], message: str) -> None:
    folder = put_checkpoint(tmp_path / "mine")
    put_json(folder / "config.json", config)
    with pytest.raises(ModelError, match=message) as caught:
        check_checkpoint(folder)
    assert caught.value.hint
    assert len(str(caught.value)) < 300


@pytest.mark.parametrize("value", [0, -600, True, "600", float("nan"), float("inf")])
def test_an_absurd_length_is_a_model_error(tmp_path: Path, value: Any) -> None:
    folder = put_checkpoint(tmp_path / "mine", max_audio_len=value)
    with pytest.raises(ModelError, match="has max_audio_len"):
        check_checkpoint(folder)


@pytest.mark.parametrize("content", [b"", b"\xff\xfe", b"[" * 100_000, b"[]", b" " * (17 << 20) + b"{}"])
def test_a_configuration_that_cannot_be_read(tmp_path: Path, content: bytes) -> None:
    folder = put_checkpoint(tmp_path / "mine")
    (folder / "config.json").write_bytes(content)
    with pytest.raises(ModelError, match=r"config.json is not a configuration in JSON"):
        check_checkpoint(folder)
    assert installed_checkpoints(tmp_path) == []


def test_a_named_pipe_is_not_opened(tmp_path: Path) -> None:
    folder = put_checkpoint(tmp_path / "mine")
    (folder / "config.json").unlink()
    os.mkfifo(folder / "config.json")
    assert not is_checkpoint_name(str(folder))
    with pytest.raises(ModelError, match=r"lacks config.json"):
        check_checkpoint(folder)


def test_checking_imports_neither_torch_nor_transformers(tmp_path: Path) -> None:
    folder = put_checkpoint(tmp_path / "mine")
    code = (
        "import json, pathlib, sys\n"
        "from musicflamingo_cli.models.checkpoints import check_checkpoint\n"
        f"check_checkpoint(pathlib.Path({str(folder)!r}))\n"
        "print(json.dumps([name for name in ('torch', 'transformers', 'safetensors') if name in sys.modules]))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert json.loads(done.stdout) == []
