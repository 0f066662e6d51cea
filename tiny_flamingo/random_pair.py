"""A pair of random weights in the Music Flamingo architecture, small enough to write for every test.

Its answers are noise made of short words: it knows nothing at all. Tests take it where files, flags and failures are
the matter and what is heard is not, since it is a third of the trained pair and its words are its tokens.

The tensor names and metadata keys are those that llama.cpp's loader reads (src/llama-arch.cpp for the
language model, tools/mtmd/clip.cpp for the projector).
"""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import gguf
import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float32]

LANGUAGE_MODEL_NAME = "random.F32.gguf"
PROJECTOR_NAME = "random.mmproj-f16.gguf"

# Every row length is a multiple of 32, so that llama-quantize can make a Q8_0 of it (block of 32).
WIDTH = 64
FEED_FORWARD = 128
HEADS = 4
LAYERS = 2
CONTEXT = 32768  # room for 1200 s of audio: 40 windows of 750 tokens, and the answer
MEL_BINS = 128
ENCODER_POSITIONS = 1500  # whisper: 3000 mel frames in 30 s, halved by the second convolution


@dataclass(frozen=True, slots=True)
class Encoder:
    """The shape of an audio encoder: whisper's layers, and how many of how much."""

    width: int = WIDTH
    feed_forward: int = FEED_FORWARD
    heads: int = HEADS
    layers: int = LAYERS
    half: bool = False  # matrices as F16, as in published projectors


CHAT_TEMPLATE = (
    "{% for m in messages %}<|im_start|>{{ m['role'] }}\n"
    "{% if m['content'] is string %}{{ m['content'] }}"
    "{% else %}{% for c in m['content'] %}{% if c['type'] == 'text' %}{{ c['text'] }}"
    "{% else %}<sound>{% endif %}{% endfor %}{% endif %}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)

# fmt: off
_SYLLABLES_FIRST = (
    "ba", "be", "bo", "da", "de", "do", "fa", "fi", "fo", "ga", "gi", "ka",
    "ki", "ko", "la", "le", "li", "lo", "ma", "mi", "mo", "na", "ne", "no",
)
_SYLLABLES_LAST = (
    "ran", "rel", "rin", "rol", "sam", "sen", "sil", "son", "tal",
    "tem", "tin", "tor", "van", "vel", "vin", "vor", "zan", "zel",
)
# fmt: on


def _byte_alphabet() -> list[str]:
    """The 256 printable stand-ins for bytes that GPT-2's byte-level BPE uses, in token order."""
    shown = [*range(33, 127), *range(161, 173), *range(174, 256)]
    hidden = [b for b in range(256) if b not in shown]
    return [chr(b) for b in shown] + [chr(256 + i) for i in range(len(hidden))]


def vocabulary() -> tuple[list[str], range, range]:
    """All tokens in order, and the index ranges of the words and of the sentence ends among them."""
    tokens = [*_byte_alphabet(), "ab"]  # llama.cpp wants at least one merge, and its result
    words = [f"Ġ{a}{b}" for a in _SYLLABLES_FIRST for b in _SYLLABLES_LAST]
    first = len(tokens)
    ends = [f"{word}." for word in words[::9]]
    tokens += words + ends
    word_range = range(first, first + len(words))
    end_range = range(word_range.stop, word_range.stop + len(ends))
    return [*tokens, "<|endoftext|>", "<|im_start|>", "<|im_end|>", "<sound>"], word_range, end_range


def write_random_pair(folder: Path) -> tuple[Path, Path]:
    """Write the pair into ``folder`` and return (language model, projector).

    The same bytes every time: the weights come from numpy's frozen ``RandomState`` stream. Each file is
    complete under its name or not there at all.
    """
    folder.mkdir(parents=True, exist_ok=True)
    return (
        _atomically(folder / LANGUAGE_MODEL_NAME, _write_language_model),
        _atomically(folder / PROJECTOR_NAME, write_projector),
    )


def _atomically(path: Path, write: Callable[[Path], None]) -> Path:
    part = path.with_name(f".{path.name}.{os.getpid()}.part")
    try:
        write(part)
        os.replace(part, path)
    finally:
        part.unlink(missing_ok=True)
    return path


class _Weights:
    """Seeded tensors added to a GGUF file under llama.cpp's names."""

    def __init__(self, writer: gguf.GGUFWriter, seed: int, half: bool = False) -> None:
        self.writer = writer
        self.half = half
        self.random = np.random.RandomState(seed)  # its stream is frozen (NEP 19); Generator's is not

    def normal(self, *shape: int, scale: float) -> Array:
        return (self.random.standard_normal(shape) * scale).astype(np.float32)

    def add(self, name: str, data: Array, half: bool = False) -> None:
        self.writer.add_tensor(name, data.astype(np.float16) if half else data)

    def add_matrix(self, name: str, rows: int, columns: int, gain: float = 1.0) -> None:
        self.add(f"{name}.weight", self.normal(rows, columns, scale=gain / columns**0.5), self.half)

    def add_bias(self, name: str, *shape: int, value: float = 0.0) -> None:
        self.add(f"{name}.bias", np.full(shape, value, np.float32))

    def add_norm(self, name: str, width: int = WIDTH, bias: bool = False) -> None:
        self.add(f"{name}.weight", np.ones(width, np.float32))
        if bias:
            self.add_bias(name, width)


def _write_language_model(path: Path) -> None:
    tokens, words, ends = vocabulary()
    writer = gguf.GGUFWriter(path, "qwen2")
    writer.add_name("musicflamingo-tiny (random weights: its answers are noise)")
    writer.add_bool("musicflamingo.toy", True)  # our own key: whatever shows its answers says so
    writer.add_context_length(CONTEXT)
    writer.add_embedding_length(WIDTH)
    writer.add_feed_forward_length(FEED_FORWARD)
    writer.add_block_count(LAYERS)
    writer.add_head_count(HEADS)
    writer.add_head_count_kv(HEADS)
    writer.add_layer_norm_rms_eps(1e-6)
    writer.add_rope_freq_base(1e6)
    writer.add_file_type(gguf.LlamaFileType.ALL_F32)
    _add_tokenizer(writer, tokens)
    _add_language_tensors(_Weights(writer, seed=20), len(tokens), words, ends)
    close_writer(writer)


def _add_tokenizer(writer: gguf.GGUFWriter, tokens: list[str]) -> None:
    control = len(tokens) - 4
    types = [gguf.TokenType.NORMAL] * control + [gguf.TokenType.CONTROL] * 4
    writer.add_tokenizer_model("gpt2")
    writer.add_tokenizer_pre("qwen2")
    writer.add_token_list(tokens)
    writer.add_token_types(types)
    writer.add_token_merges(["a b"])
    writer.add_eos_token_id(tokens.index("<|im_end|>"))
    writer.add_pad_token_id(tokens.index("<|endoftext|>"))
    writer.add_add_bos_token(False)
    writer.add_chat_template(CHAT_TEMPLATE)


def _add_language_tensors(weights: _Weights, n_vocab: int, words: range, ends: range) -> None:
    weights.add("token_embd.weight", weights.normal(n_vocab, WIDTH, scale=1.0))
    # Only words, sentence ends and <|im_end|> can win: the other rows are zero, and among so many
    # random logits the best is far above zero. The gains set how often a sentence and the answer end.
    output = weights.normal(n_vocab, WIDTH, scale=1.0)
    output[: words.start] = 0.0
    output[ends.start : ends.stop] *= 1.1
    output[ends.stop :] = 0.0
    output[n_vocab - 2] = weights.normal(WIDTH, scale=1.35)
    weights.add("output.weight", output)
    weights.add_norm("output_norm")
    for layer in range(LAYERS):
        block = f"blk.{layer}"
        weights.add_norm(f"{block}.attn_norm")
        weights.add_norm(f"{block}.ffn_norm")
        for name, gain in (("attn_q", 2.0), ("attn_k", 2.0), ("attn_v", 2.0)):
            weights.add_matrix(f"{block}.{name}", WIDTH, WIDTH, gain)
            weights.add_bias(f"{block}.{name}", WIDTH)
        weights.add_matrix(f"{block}.attn_output", WIDTH, WIDTH, 2.0)
        weights.add_matrix(f"{block}.ffn_gate", FEED_FORWARD, WIDTH, 2.0)
        weights.add_matrix(f"{block}.ffn_up", FEED_FORWARD, WIDTH, 2.0)
        weights.add_matrix(f"{block}.ffn_down", WIDTH, FEED_FORWARD, 2.0)


def write_projector(path: Path, projection: int = WIDTH, encoder: Encoder | None = None) -> None:
    """Write the random projector, giving vectors ``projection`` wide: the embedding length of its language model."""
    encoder = encoder or Encoder()
    writer = gguf.GGUFWriter(path, "clip")
    writer.add_name("projector of random weights")
    writer.add_file_type(gguf.LlamaFileType.MOSTLY_F16)
    writer.add_bool("clip.has_audio_encoder", True)
    writer.add_string("clip.projector_type", "musicflamingo")
    writer.add_uint32("clip.audio.num_mel_bins", MEL_BINS)
    writer.add_uint32("clip.audio.embedding_length", encoder.width)
    writer.add_uint32("clip.audio.feed_forward_length", encoder.feed_forward)
    writer.add_uint32("clip.audio.block_count", encoder.layers)
    writer.add_uint32("clip.audio.attention.head_count", encoder.heads)
    writer.add_float32("clip.audio.attention.layer_norm_epsilon", 1e-5)
    writer.add_uint32("clip.audio.projection_dim", projection)
    _add_projector_tensors(_Weights(writer, 30, encoder.half), projection, encoder)
    close_writer(writer)


def _add_projector_tensors(weights: _Weights, projection: int, encoder: Encoder) -> None:
    inner, outer = encoder.width, encoder.feed_forward
    for index, channels in ((1, MEL_BINS), (2, inner)):
        kernel = weights.normal(inner, channels, 3, scale=2.0 / (3 * channels) ** 0.5)
        weights.add(f"a.conv1d.{index}.weight", kernel, half=True)
        weights.add_bias(f"a.conv1d.{index}", inner, 1)
    weights.add("a.position_embd.weight", weights.normal(ENCODER_POSITIONS, inner, scale=0.1))
    weights.add_norm("a.post_ln", inner, bias=True)
    for layer in range(encoder.layers):
        block = f"a.blk.{layer}"
        weights.add_norm(f"{block}.ln1", inner, bias=True)
        weights.add_norm(f"{block}.ln2", inner, bias=True)
        for name in ("attn_q", "attn_k", "attn_v", "attn_out"):
            weights.add_matrix(f"{block}.{name}", inner, inner)
            if name != "attn_k":  # whisper's attention has no bias on its keys
                weights.add_bias(f"{block}.{name}", inner)
        weights.add_matrix(f"{block}.ffn_up", outer, inner)
        weights.add_bias(f"{block}.ffn_up", outer)
        weights.add_matrix(f"{block}.ffn_down", inner, outer)
        weights.add_bias(f"{block}.ffn_down", inner)
    for index, width, gain in ((1, inner, 2.0), (2, projection, 4.0)):
        weights.add_matrix(f"mm.a.mlp.{index}", width, inner, gain)
        weights.add_bias(f"mm.a.mlp.{index}", width)


def close_writer(writer: gguf.GGUFWriter) -> None:
    """Write what was added to a GGUF file, and close it."""
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
