"""Folders with the files of a checkpoint: real safetensors and configurations, with a few numbers as weights."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
from safetensors.numpy import save_file

# The text model of the published checkpoints (Qwen2.5-7B).
TEXT: dict[str, Any] = {
    "model_type": "qwen2",
    "max_position_embeddings": 32768,
    "num_hidden_layers": 28,
    "num_attention_heads": 28,
    "num_key_value_heads": 4,
    "hidden_size": 3584,
}


def put_checkpoint(
    folder: Path, model_type: str = "musicflamingo", parts: int = 1, max_audio_len: float | None = None
) -> Path:
    """Write a complete checkpoint, its weights in ``parts`` files, and return its folder."""
    folder.mkdir(parents=True)
    put_json(folder / "config.json", {"model_type": model_type, "text_config": TEXT})
    put_json(folder / "processor_config.json", {} if max_audio_len is None else {"max_audio_len": max_audio_len})
    put_json(folder / "tokenizer_config.json", {"tokenizer_class": "PreTrainedTokenizerFast"})
    put_json(folder / "tokenizer.json", {"version": "1.0"})
    (folder / "chat_template.jinja").write_text("{{ messages }}")
    if parts == 1:
        save_file({"a": np.zeros((4, 8), np.float16)}, folder / "model.safetensors", metadata={"format": "pt"})
        return folder
    names = {f"a.{part}": f"model-{part:05}-of-{parts:05}.safetensors" for part in range(1, parts + 1)}
    for tensor, name in names.items():
        save_file({tensor: np.zeros((4, 8), np.float16)}, folder / name, metadata={"format": "pt"})
    put_json(folder / "model.safetensors.index.json", {"metadata": {}, "weight_map": names})
    return folder


def put_json(file: Path, values: Any) -> None:
    file.write_text(json.dumps(values))


def put_generator(folder: Path, channels: int = 1, parts: int = 1) -> Path:
    """Write a MusicGen checkpoint that is complete to look at (its weights are not a model's); return its folder."""
    put_checkpoint(folder, parts=parts)
    for name in ("processor_config.json", "chat_template.jinja"):
        (folder / name).unlink()
    put_json(
        folder / "config.json",
        {
            "model_type": "musicgen",
            "audio_encoder": {"model_type": "encodec", "sampling_rate": 32_000},
            "decoder": {"audio_channels": channels},
        },
    )
    return folder
