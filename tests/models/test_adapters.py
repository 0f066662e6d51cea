"""Adapters: which folders are one, and which models they belong to."""

from __future__ import annotations

import json
import os
import shutil
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import load_file, save_file
from typer.testing import CliRunner

from musicflamingo_cli.choices import EngineName
from musicflamingo_cli.cli import app
from musicflamingo_cli.config import Settings
from musicflamingo_cli.errors import ModelError, ToolMissingError
from musicflamingo_cli.models import adapter_gguf
from musicflamingo_cli.models.adapters import GGUF, check_adapter
from musicflamingo_cli.models.fingerprint import fingerprint
from musicflamingo_cli.models.model import Adapter, Checkpoint, ModelPair
from musicflamingo_cli.models.resolve import resolve, resolve_checkpoint, resolve_model
from musicflamingo_cli.system.identity import digest


@pytest.fixture
def pair() -> ModelPair:
    return resolve("tiny", Path())


@pytest.fixture
def adapter(tmp_path: Path, pair: ModelPair) -> Path:
    """An adapter's folder; its matrices are never loaded here."""
    return write_adapter(tmp_path / "mine", fingerprint(pair))


def write_adapter(folder: Path, base: str, **record: object) -> Path:
    folder.mkdir(parents=True)
    (folder / "adapter_config.json").write_text('{"peft_type": "LORA", "r": 4, "lora_alpha": 8}', encoding="utf-8")
    record = {"base": {"name": "musicflamingo-tiny", "fingerprint": base}, "projector": False, **record}
    (folder / "adapter.json").write_text(json.dumps(record), encoding="utf-8")
    save_file({"a": np.zeros((2, 2), np.float32)}, folder / "adapter_model.safetensors")
    return folder


def settings(lora: Path, **more: object) -> Settings:
    return Settings(model="tiny", lora=lora, **more)  # type: ignore[arg-type]


@pytest.mark.slow  # the checkpoint is made first
def test_a_checkpoint_and_its_quant_have_one_fingerprint(pair: ModelPair, tmp_path: Path) -> None:
    checkpoint = resolve_checkpoint("tiny", tmp_path)
    assert fingerprint(checkpoint) == fingerprint(pair)
    other = tmp_path / "other"
    other.mkdir()
    for file in checkpoint.folder.iterdir():
        (other / file.name).write_bytes(file.read_bytes())
    weights = load_file(other / "model.safetensors")
    weights["language_model.model.norm.weight"] = weights["language_model.model.norm.weight"] * np.float32(1.01)
    save_file(weights, other / "model.safetensors")
    changed = Checkpoint(folder=other, name="other", model_type="audioflamingo3", context_length=1, max_seconds=1.0)
    assert fingerprint(changed) != fingerprint(pair)


@pytest.mark.slow
def test_vectors_in_bf16_are_read_exactly(pair: ModelPair, tmp_path: Path) -> None:
    import torch
    from safetensors.torch import load_file as load
    from safetensors.torch import save_file as save

    checkpoint = resolve_checkpoint("tiny", tmp_path)
    found = []
    for dtype in (torch.bfloat16, torch.float32):
        folder = tmp_path / str(dtype)
        folder.mkdir()
        weights = {name: value.to(torch.bfloat16).to(dtype) for name, value in load(checkpoint.weights[0]).items()}
        save(weights, folder / "model.safetensors")
        found.append(
            fingerprint(
                Checkpoint(folder=folder, name="x", model_type="audioflamingo3", context_length=1, max_seconds=1.0)
            )
        )
    assert found[0] == found[1]


def test_an_adapter_is_part_of_the_model(adapter: Path, pair: ModelPair) -> None:
    model = resolve_model(settings(adapter))
    assert model.adapter == check_adapter(adapter)
    assert model.label == "gguf_tiny+mine"
    assert set(adapter.glob("adapter_*")) <= set(model.files)
    assert resolve_model(Settings(model="tiny")).adapter is None


def test_one_of_another_base_is_refused(tmp_path: Path, random_models: Path) -> None:
    folder = write_adapter(tmp_path / "other", "0" * 16)
    with pytest.raises(ModelError, match=r"was trained on musicflamingo-tiny; .*Q8_0\.gguf is another model"):
        resolve_model(settings(folder))


def test_one_with_a_projector_needs_transformers(tmp_path: Path, pair: ModelPair) -> None:
    folder = write_adapter(tmp_path / "wide", fingerprint(pair), projector=True)
    with pytest.raises(ModelError, match=r"projector, which llama\.cpp cannot") as caught:
        resolve_model(settings(folder))
    assert "--engine transformers" in caught.value.hint


@pytest.mark.slow
def test_one_with_a_projector_runs_in_transformers(tmp_path: Path, pair: ModelPair) -> None:
    folder = write_adapter(tmp_path / "wide", fingerprint(pair), projector=True)
    assert resolve_model(settings(folder, engine=EngineName.TRANSFORMERS)).label == "hf_tiny+wide"


def test_models_check_knows_adapters(adapter: Path, tmp_path: Path) -> None:
    def check(*arguments: object) -> tuple[int, str, str]:
        done = CliRunner().invoke(app, ["models", "check", *map(str, arguments)])
        return done.exit_code, done.stdout, done.stderr

    code, out, _ = check(adapter)
    assert code == 0
    assert out.startswith("mine: an adapter for musicflamingo-tiny, ")
    code, out, _ = check("tiny", "--lora", adapter)
    assert code == 0
    assert "with the adapter mine" in out
    code, _, errors = check("tiny", "--lora", write_adapter(tmp_path / "other", "0" * 16))
    assert code == 4
    assert "is another model" in errors


@pytest.mark.parametrize(
    ("break_it", "message"),
    [
        (lambda folder: (folder / "adapter.json").unlink(), "is not an adapter of musicflamingo"),
        (lambda folder: (folder / "adapter.json").write_text("[]"), "is not a description in JSON"),
        (lambda folder: (folder / "adapter.json").write_text('{"base": 1}'), "known base model"),
        (lambda folder: (folder / "adapter_config.json").write_text('{"peft_type": "OFT"}'), "is not a LoRA adapter"),
        (lambda folder: (folder / "adapter_config.json").unlink(), "cannot read"),
        (lambda folder: (folder / "adapter_model.safetensors").unlink(), "lacks"),
        (lambda folder: (folder / "adapter_model.safetensors").write_bytes(b"\x08" + b"\0" * 9), "damaged|cut short"),
    ],
)
def test_a_damaged_adapter_is_one_error(break_it: object, message: str, adapter: Path) -> None:
    assert callable(break_it)
    break_it(adapter)
    with pytest.raises(ModelError, match=message) as caught:
        check_adapter(adapter)
    assert "musicflamingo finetune" in caught.value.hint


def test_no_adapter_there_is_one_error(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match="no adapter at"):
        check_adapter(tmp_path / "nothing")


def converted(folder: Path) -> Adapter:
    """An adapter whose GGUF file was made of its matrices, as far as the record says."""
    adapter = check_adapter(folder)
    (folder / GGUF).write_bytes(b"GGUF")
    (folder / adapter_gguf.SOURCE).write_text(digest(adapter.files) or "")
    return adapter


def test_a_copy_of_an_adapter_keeps_its_gguf(adapter: Path, tmp_path: Path) -> None:
    """Whatever the order in which its files were copied; new matrices are converted again."""
    converted(adapter)
    copy = Path(shutil.copytree(adapter, tmp_path / "copy"))
    os.utime(copy / GGUF, (1, 1))
    assert adapter_gguf.is_converted(check_adapter(copy))
    save_file({"a": np.ones((2, 2), np.float32)}, copy / "adapter_model.safetensors")
    os.utime(copy / GGUF)
    assert not adapter_gguf.is_converted(check_adapter(copy))


def test_without_a_record_a_newer_gguf_counts(adapter: Path) -> None:
    converted(adapter)
    (adapter / adapter_gguf.SOURCE).unlink()
    assert adapter_gguf.is_converted(check_adapter(adapter))
    os.utime(adapter / GGUF, (1, 1))
    assert not adapter_gguf.is_converted(check_adapter(adapter))


@pytest.mark.parametrize("named", ["", "bin"])
def test_the_converter_is_that_of_the_named_build(tmp_path: Path, named: str) -> None:
    with pytest.raises(ToolMissingError):
        adapter_gguf.find_converter(tmp_path / named)
    file = tmp_path / "convert" / adapter_gguf.CONVERTER
    file.parent.mkdir()
    file.touch()
    assert adapter_gguf.find_converter(tmp_path / named) == file
