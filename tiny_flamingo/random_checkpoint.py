"""Checkpoints of random weights for transformers, in the published models' classes and proportions.

    python -m tiny_flamingo.random_checkpoint FOLDER --type musicflamingo --size small

`tiny` is for tests. `small` has an encoder and a language model in the real proportion, for measurements on a CPU.
`full` has the real model's shape (8.3 billion weights, 16.5 GB in bf16), for measurements on a GPU that has no weights.
Configuration, generation defaults and template are like the published ones. Answers are noise made of the tiny model's
words, and differ from audio to audio.
"""

from __future__ import annotations

import argparse
import math
import re
import zlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from huggingface_hub import split_torch_state_dict_into_shards
from safetensors.torch import save_file
from torch import Tensor
from transformers import AutoConfig, AutoModelForSeq2SeqLM

from musicflamingo_cli.models.checkpoints import AUDIO_FLAMINGO_3, CONFIG, MUSIC_FLAMINGO, TINY_KEY
from musicflamingo_cli.models.resolve import tiny_language_model
from musicflamingo_cli.models.tiny_checkpoint import (
    END,
    TEMPLATE,
    audio_ids,
    complete_folder,
    read_tokenizer,
    token_ids,
    write_json,
    write_processor,
)
from tiny_flamingo.random_pair import Encoder

TYPES = (MUSIC_FLAMINGO, AUDIO_FLAMINGO_3)
SYSTEM_PROMPT = "You are Music Flamingo, a model that listens to music and says what is in it."
GENERATION = {  # the published checkpoints' defaults, which act unless they are replaced
    "do_sample": True,
    "temperature": 0.7,
    "top_k": 20,
    "top_p": 0.8,
    "repetition_penalty": 1.05,
    "max_new_tokens": 2048,
}
THOUGHT = ("Ċ", "<think>", "Ġkey", "Ġand", "Ġtempo", "</think>")  # each makes the next one certain
SHARD = "4GB"
_WORD = re.compile(r"Ġ[A-Za-z]{2,}|\.")


@dataclass(frozen=True, slots=True)
class Size:
    """The shapes of a Qwen2 language model and of the encoder before it."""

    width: int
    feed_forward: int
    layers: int
    heads: int
    kv_heads: int
    vocabulary: int  # the least: tokens that the tokenizer does not have are never chosen
    encoder: Encoder
    dtype: str = "float32"


SIZES = {
    "tiny": Size(128, 384, 3, 4, 2, 0, Encoder(128, 512, 4, 3)),
    # benchmarks/throughput.py says why this encoder; the output matrix is a twentieth of the weights, as in 7B.
    "small": Size(768, 4096, 10, 12, 2, 8192, Encoder(384, 1536, 6, 6)),
    "full": Size(3584, 18_944, 28, 28, 4, 151_672, Encoder(1280, 5120, 20, 32), "bfloat16"),
}


def write_random_checkpoint(
    folder: Path,
    model_type: str,
    *,
    size: str = "tiny",
    thinking: bool = False,
    max_audio_seconds: int | None = None,
) -> None:
    """Write a checkpoint of the class ``model_type``; the same weights every time on the same kind of device.

    ``thinking``: each answer begins with a thought between `<think>` and `</think>`. ``max_audio_seconds``: the
    processor's limit; None for the class's own, 1800 for Audio Flamingo Next. The folder is complete under its name or
    not there at all; a checkpoint that is there already stays as it is.
    """
    if (folder / CONFIG).is_file():
        return
    shape = SIZES[size]
    tokenizer = read_tokenizer(tiny_language_model(), model_type)
    if thinking:
        tokenizer.add_tokens([THOUGHT[1], THOUGHT[-1]])  # ordinary tokens: decoding leaves them in the text
    config = config_for(shape, tokenizer, model_type, max_audio_seconds or 0)
    with complete_folder(folder) as part:
        write_json(part / CONFIG, config)
        write_json(part / "generation_config.json", GENERATION | token_ids(tokenizer))
        write_processor(part, model_type, tokenizer, _template(), max_audio_seconds)
        _write_weights(part, config, tokenizer, THOUGHT if thinking else ())


def _template() -> str:
    system = f"<|im_start|>system\n{SYSTEM_PROMPT}<|im_end|>\n"
    return "{% if messages[0]['role'] != 'system' %}" + system + "{% endif %}" + TEMPLATE


def config_for(shape: Size, tokenizer: Any, model_type: str, seconds: int = 0) -> dict[str, Any]:
    """What config.json says of a checkpoint for audio of so many seconds."""
    encoder = shape.encoder
    audio = {
        "model_type": "audioflamingo3_encoder",
        "hidden_size": encoder.width,
        "num_hidden_layers": encoder.layers,
        "num_attention_heads": encoder.heads,
        "intermediate_size": encoder.feed_forward,
    }
    text = {
        "model_type": "qwen2",
        "vocab_size": max(shape.vocabulary, tokenizer.get_vocab_size()),
        "hidden_size": shape.width,
        "intermediate_size": shape.feed_forward,
        "num_hidden_layers": shape.layers,
        "num_attention_heads": shape.heads,
        "num_key_value_heads": shape.kv_heads,
        "max_position_embeddings": 32_768 if seconds <= 1200 else 131_072,
        "rms_norm_eps": 1e-6,
        "rope_parameters": {"rope_type": "default", "rope_theta": 1e6},
        "tie_word_embeddings": False,
        "use_cache": False,  # as in `music-flamingo-2601-hf`
        "bos_token_id": None,
        **token_ids(tokenizer),
    }
    return {
        "model_type": model_type,
        "dtype": shape.dtype,
        TINY_KEY: True,
        "audio_config": audio,
        "text_config": text,
        **audio_ids(tokenizer, model_type),
    }


def _write_weights(folder: Path, config: dict[str, Any], tokenizer: Any, chain: Sequence[str]) -> None:
    """Write shards of the published sizes and names, one after another: memory holds one shard."""
    shapes = published_weights(config)
    plan = split_torch_state_dict_into_shards(shapes, max_shard_size=SHARD)
    device = "cuda" if torch.cuda.is_available() else "cpu"
    for file, names in plan.filename_to_tensors.items():
        weights = {name: _draw(name, shapes[name], device) for name in names}
        for name in weights:
            if name.endswith("embed_tokens.weight"):
                _mark(weights[name], [tokenizer.token_to_id(token) for token in chain])
            if name.endswith("lm_head.weight"):
                _shape_answers(weights[name], tokenizer, chain)
            if name.endswith(("o_proj.weight", "down_proj.weight")):
                weights[name][: len(chain)] = 0.0  # no layer writes where the tokens of the chain are marked
        save_file({name: weight.cpu() for name, weight in weights.items()}, folder / file, metadata={"format": "pt"})
    if plan.is_sharded:
        index = {"metadata": plan.metadata, "weight_map": plan.tensor_to_filename}
        write_json(folder / "model.safetensors.index.json", index)


def published_weights(config: dict[str, Any]) -> dict[str, Tensor]:
    """The weights that a configuration asks for, under the names that published checkpoints have, without values."""
    with torch.device("meta"):
        model = AutoModelForSeq2SeqLM.from_config(AutoConfig.for_model(**config), dtype=getattr(torch, config["dtype"]))
    return {_published(name): weight for name, weight in model.state_dict().items()}


def _published(name: str) -> str:
    if name.startswith("lm_head."):
        return f"language_model.{name}"
    return name.removeprefix("model.").replace("language_model.", "language_model.model.", 1)


def _draw(name: str, shape: Tensor, device: str) -> Tensor:
    """A weight like ``shape`` that depends on its name only. Matrices keep the size of what they multiply."""
    weight = torch.empty(shape.shape, dtype=shape.dtype, device=device)
    if name.endswith("bias"):
        return weight.zero_()
    if weight.ndim == 1:  # of a norm
        return weight.fill_(1.0)
    if name.endswith("embed_positions.weight"):
        scale = 0.1
    elif name.endswith(("embed_tokens.weight", "lm_head.weight")):
        scale = 1.0
    else:  # more in the language model, or the audio's part in the answer would be lost
        scale = (2.0 if "language_model" in name or "projector" in name else 1.0) / math.sqrt(weight[0].numel())
    return weight.normal_(0.0, scale, generator=torch.Generator(device).manual_seed(zlib.crc32(name.encode())))


def _mark(embeddings: Tensor, chain: Sequence[int]) -> None:
    """Give each token of the chain a column of its own."""
    embeddings[:, : len(chain)] = 0.0
    for column, token in enumerate(chain):
        embeddings[token, column] = 100.0


def _shape_answers(output: Tensor, tokenizer: Any, chain: Sequence[str]) -> None:
    """Let only words, full stops and the end be chosen, the end seldom; and after a token of the chain the next one."""
    chosen = [number for token, number in tokenizer.get_vocab().items() if _WORD.fullmatch(token) or token == END]
    others = torch.ones(len(output), dtype=torch.bool, device=output.device)
    others[chosen] = False
    output[others] = 0.0  # among so many random logits the best is far above zero
    output[tokenizer.token_to_id(".")] *= 1.2
    output[:, : len(chain)] = 0.0
    for column, token in enumerate(chain[1:]):
        output[tokenizer.token_to_id(token)] = 0.0
        output[tokenizer.token_to_id(token), column] = 1e4


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--type", choices=TYPES, default=MUSIC_FLAMINGO)
    parser.add_argument("--size", choices=SIZES, default="tiny")
    parser.add_argument("--thinking", action="store_true")
    parser.add_argument("--max-audio-seconds", type=int)
    options = parser.parse_args()
    write_random_checkpoint(
        options.folder,
        options.type,
        size=options.size,
        thinking=options.thinking,
        max_audio_seconds=options.max_audio_seconds,
    )
    print(options.folder)


if __name__ == "__main__":
    main()
