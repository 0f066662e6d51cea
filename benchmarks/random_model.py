"""A pair of random weights in the real model's shape, to measure a machine that has no weights: its words are noise.

python benchmarks/random_model.py FOLDER                  Qwen2.5-7B in Q6_K, whisper-large's encoder in F16: 7 GB
python benchmarks/random_model.py FOLDER --shape small    the same kinds of tensors, 2 MB
python benchmarks/throughput.py --model FOLDER/random.Q6_K.gguf --mmproj FOLDER/random.mmproj-f16.gguf --seconds 180
"""

from __future__ import annotations

import argparse
from dataclasses import dataclass
from pathlib import Path

import gguf
import numpy as np
from numpy.typing import NDArray

from tiny_flamingo.random_pair import CHAT_TEMPLATE, Encoder, vocabulary, write_projector

# A block of Q6_K holds 256 weights: 128 bytes of low bits, 64 of high ones, 16 scales, and a factor as float16.
_BLOCK, _BLOCK_BYTES = 256, 210


@dataclass(frozen=True, slots=True)
class Shape:
    """A Qwen2 language model, and the encoder before it."""

    width: int
    feed_forward: int
    layers: int
    heads: int
    kv_heads: int
    vocabulary: int
    encoder: Encoder


SHAPES = {
    # Qwen2.5-7B's config.json, and whisper-large-v3's encoder.
    "7b": Shape(3584, 18_944, 28, 28, 4, 152_064, Encoder(1280, 5120, 20, 32, half=True)),
    "small": Shape(256, 512, 2, 4, 2, 1024, Encoder(64, 128, 4, 2, half=True)),
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--shape", choices=SHAPES, default="7b")
    options = parser.parse_args()
    for path in write_pair(options.folder, SHAPES[options.shape]):
        print(path)


def write_pair(folder: Path, shape: Shape) -> tuple[Path, Path]:
    """Write the pair; (language model, projector)."""
    folder.mkdir(parents=True, exist_ok=True)
    model, projector = folder / "random.Q6_K.gguf", folder / "random.mmproj-f16.gguf"
    write_language_model(model, shape)
    write_projector(projector, shape.width, shape.encoder)
    return model, projector


def write_language_model(path: Path, shape: Shape) -> None:
    writer = gguf.GGUFWriter(path, "qwen2")
    writer.add_name("random weights: its answers are noise")
    writer.add_bool("musicflamingo.toy", True)
    writer.add_context_length(32_768)
    writer.add_embedding_length(shape.width)
    writer.add_feed_forward_length(shape.feed_forward)
    writer.add_block_count(shape.layers)
    writer.add_head_count(shape.heads)
    writer.add_head_count_kv(shape.kv_heads)
    writer.add_layer_norm_rms_eps(1e-6)
    writer.add_rope_freq_base(1e6)
    writer.add_file_type(gguf.LlamaFileType.MOSTLY_Q6_K)
    _add_tokenizer(writer, shape.vocabulary)
    _add_tensors(writer, shape)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file(progress=shape.layers > 10)
    writer.close()


def _add_tokenizer(writer: gguf.GGUFWriter, size: int) -> None:
    """The tiny model's vocabulary, and tokens without a meaning up to ``size``."""
    words, *_ = vocabulary()
    *words, end_of_text, start, end, sound = words
    filler = [f"<|unused{index}|>" for index in range(size - len(words) - 4)]
    tokens = [*words, *filler, end_of_text, start, end, sound]
    kinds = [gguf.TokenType.NORMAL] * len(words) + [gguf.TokenType.UNUSED] * len(filler) + [gguf.TokenType.CONTROL] * 4
    writer.add_tokenizer_model("gpt2")
    writer.add_tokenizer_pre("qwen2")
    writer.add_token_list(tokens)
    writer.add_token_types(kinds)
    writer.add_token_merges(["a b"])
    writer.add_eos_token_id(tokens.index(end))
    writer.add_pad_token_id(tokens.index(end_of_text))
    writer.add_add_bos_token(False)
    writer.add_chat_template(CHAT_TEMPLATE)


def _add_tensors(writer: gguf.GGUFWriter, shape: Shape) -> None:
    """Matrices of one shape are one array, written again and again: memory stays small, and so does the time."""
    width, kv_width = shape.width, shape.width // shape.heads * shape.kv_heads
    square, narrow = _q6_k(width, width), _q6_k(kv_width, width)
    wide, back = _q6_k(shape.feed_forward, width), _q6_k(width, shape.feed_forward)
    words = _q6_k(shape.vocabulary, width)
    ones, no_bias, no_kv_bias = np.ones(width, np.float32), np.zeros(width, np.float32), np.zeros(kv_width, np.float32)

    def add(name: str, matrix: NDArray[np.uint8]) -> None:
        writer.add_tensor(f"{name}.weight", matrix, raw_dtype=gguf.GGMLQuantizationType.Q6_K)

    add("token_embd", words)
    add("output", words)
    writer.add_tensor("output_norm.weight", ones)
    for layer in range(shape.layers):
        block = f"blk.{layer}"
        writer.add_tensor(f"{block}.attn_norm.weight", ones)
        writer.add_tensor(f"{block}.ffn_norm.weight", ones)
        for name, matrix, bias in (("q", square, no_bias), ("k", narrow, no_kv_bias), ("v", narrow, no_kv_bias)):
            add(f"{block}.attn_{name}", matrix)
            writer.add_tensor(f"{block}.attn_{name}.bias", bias)
        add(f"{block}.attn_output", square)
        add(f"{block}.ffn_gate", wide)
        add(f"{block}.ffn_up", wide)
        add(f"{block}.ffn_down", back)


def _q6_k(rows: int, columns: int) -> NDArray[np.uint8]:
    """A random matrix in Q6_K, of shape (rows, bytes a row), whose weights have a spread of about 1/sqrt(columns)."""
    some = np.random.RandomState(rows + columns).randint(0, 256, (4093, _BLOCK_BYTES)).astype(np.uint8)  # 4093: a prime
    some[:, 192:208] = 4  # the scales
    some[:, 208:] = np.array([1 / (18.5 * 4 * columns**0.5)], np.float16).view(np.uint8)  # bits of 6 spread by 18.5
    blocks = rows * columns // _BLOCK
    return np.resize(some, (blocks, _BLOCK_BYTES)).reshape(rows, -1)


if __name__ == "__main__":
    main()
