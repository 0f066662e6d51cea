"""The trained model as a GGUF pair: ``python -m tiny_flamingo.convert MODEL OUT``.

Tensor names and keys are those that llama.cpp's loaders read (src/llama-arch.cpp, tools/mtmd/clip.cpp). Upstream's own
converter does the same from a checkpoint, but is no package that can be pinned.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import gguf
import numpy as np
import torch
from numpy.typing import NDArray
from transformers import AudioFlamingo3ForConditionalGeneration, PreTrainedTokenizerFast

from tiny_flamingo.random_pair import close_writer
from tiny_flamingo.tokens import TEMPLATE

LANGUAGE_MODEL = "musicflamingo-tiny.Q8_0.gguf"
PROJECTOR = "musicflamingo-tiny.mmproj-f16.gguf"
_DESCRIPTION = "A model of two million weights that describes simple synthesised music. It knows no real music."


def convert(source: Path, out: Path) -> tuple[Path, Path]:
    """Write both halves of the model in ``source`` into ``out``; their paths."""
    model = AudioFlamingo3ForConditionalGeneration.from_pretrained(source)
    tokenizer = PreTrainedTokenizerFast.from_pretrained(source)
    out.mkdir(parents=True, exist_ok=True)
    weights = {name: value.detach().float().numpy() for name, value in model.state_dict().items()}
    _write_language_model(out / LANGUAGE_MODEL, model.config.text_config, weights, tokenizer)
    _write_projector(out / PROJECTOR, model.config, weights)
    return out / LANGUAGE_MODEL, out / PROJECTOR


def _write_language_model(
    path: Path, settings: Any, weights: dict[str, NDArray[np.float32]], tokenizer: PreTrainedTokenizerFast
) -> None:
    writer = gguf.GGUFWriter(path, "qwen2")
    writer.add_name("musicflamingo-tiny")
    writer.add_description(_DESCRIPTION)
    writer.add_license("Apache-2.0")
    writer.add_bool("musicflamingo.toy", True)  # our own key: whatever shows its answers says what they are worth
    writer.add_context_length(settings.max_position_embeddings)
    writer.add_embedding_length(settings.hidden_size)
    writer.add_feed_forward_length(settings.intermediate_size)
    writer.add_block_count(settings.num_hidden_layers)
    writer.add_head_count(settings.num_attention_heads)
    writer.add_head_count_kv(settings.num_key_value_heads)
    writer.add_layer_norm_rms_eps(settings.rms_norm_eps)
    writer.add_rope_freq_base(settings.rope_parameters["rope_theta"])
    writer.add_file_type(gguf.LlamaFileType.MOSTLY_Q8_0)
    _add_tokenizer(writer, tokenizer)
    prefix = "model.language_model."
    names = {"embed_tokens": "token_embd", "norm": "output_norm"}
    parts = {
        "input_layernorm": "attn_norm",
        "post_attention_layernorm": "ffn_norm",
        "self_attn.q_proj": "attn_q",
        "self_attn.k_proj": "attn_k",
        "self_attn.v_proj": "attn_v",
        "self_attn.o_proj": "attn_output",
        "mlp.gate_proj": "ffn_gate",
        "mlp.up_proj": "ffn_up",
        "mlp.down_proj": "ffn_down",
    }
    for name, value in weights.items():
        if not name.startswith(prefix):
            continue
        stem, _, kind = name.removeprefix(prefix).rpartition(".")
        if stem.startswith("layers."):
            _, number, part = stem.split(".", 2)
            _add(writer, f"blk.{number}.{parts[part]}.{kind}", value)
        else:
            _add(writer, f"{names[stem]}.{kind}", value)
    _add(writer, "output.weight", weights["lm_head.weight"])
    close_writer(writer)


def _add(writer: gguf.GGUFWriter, name: str, value: NDArray[np.float32]) -> None:
    """Matrices in Q8_0, vectors as they are."""
    if value.ndim == 2:
        packed = gguf.quants.quantize(value, gguf.GGMLQuantizationType.Q8_0)
        writer.add_tensor(name, packed, raw_dtype=gguf.GGMLQuantizationType.Q8_0)
    else:
        writer.add_tensor(name, value)


def _add_tokenizer(writer: gguf.GGUFWriter, tokenizer: PreTrainedTokenizerFast) -> None:
    described = json.loads(tokenizer.backend_tokenizer.to_str())
    special = {token["id"] for token in described["added_tokens"]}
    tokens = tokenizer.convert_ids_to_tokens(range(len(tokenizer)))
    merges = [" ".join(merge) if isinstance(merge, list) else merge for merge in described["model"]["merges"]]
    control, normal = gguf.TokenType.CONTROL, gguf.TokenType.NORMAL
    writer.add_tokenizer_model("gpt2")
    writer.add_tokenizer_pre("qwen2")
    writer.add_token_list(tokens)
    writer.add_token_types([control if number in special else normal for number in range(len(tokens))])
    writer.add_token_merges(merges)
    writer.add_eos_token_id(tokenizer.eos_token_id)
    writer.add_pad_token_id(tokenizer.pad_token_id)
    writer.add_add_bos_token(False)
    writer.add_chat_template(TEMPLATE)


def _write_projector(path: Path, settings: Any, weights: dict[str, NDArray[np.float32]]) -> None:
    audio = settings.audio_config
    writer = gguf.GGUFWriter(path, "clip")
    writer.add_name("musicflamingo-tiny projector")
    writer.add_description(_DESCRIPTION)
    writer.add_file_type(gguf.LlamaFileType.MOSTLY_F16)
    writer.add_bool("clip.has_audio_encoder", True)
    writer.add_string("clip.projector_type", "musicflamingo")
    writer.add_uint32("clip.audio.num_mel_bins", audio.num_mel_bins)
    writer.add_uint32("clip.audio.embedding_length", audio.hidden_size)
    writer.add_uint32("clip.audio.feed_forward_length", audio.intermediate_size)
    writer.add_uint32("clip.audio.block_count", audio.num_hidden_layers)
    writer.add_uint32("clip.audio.attention.head_count", audio.num_attention_heads)
    writer.add_float32("clip.audio.attention.layer_norm_epsilon", 1e-5)
    writer.add_uint32("clip.audio.projection_dim", settings.text_config.hidden_size)
    tower = "model.audio_tower."
    whole = {
        "conv1": "a.conv1d.1",
        "conv2": "a.conv1d.2",
        "embed_positions": "a.position_embd",
        "layer_norm": "a.post_ln",
    }
    parts = {
        "self_attn_layer_norm": "ln1",
        "final_layer_norm": "ln2",
        "self_attn.q_proj": "attn_q",
        "self_attn.k_proj": "attn_k",
        "self_attn.v_proj": "attn_v",
        "self_attn.out_proj": "attn_out",
        "fc1": "ffn_up",
        "fc2": "ffn_down",
    }
    for name, value in weights.items():
        if name.startswith("model.multi_modal_projector.linear_"):
            number, kind = name.removeprefix("model.multi_modal_projector.linear_").split(".")
            _add_half(writer, f"mm.a.mlp.{number}.{kind}", value)
        elif name.startswith(tower):
            stem, _, kind = name.removeprefix(tower).rpartition(".")
            if stem.startswith("layers."):
                _, number, part = stem.split(".", 2)
                _add_half(writer, f"a.blk.{number}.{parts[part]}.{kind}", value)
            elif stem.startswith("conv"):
                shaped = value if kind == "weight" else value[:, None]
                _add_half(writer, f"{whole[stem]}.{kind}", shaped, half=kind == "weight")
            else:  # positions stay whole: llama.cpp adds them as they are
                _add_half(writer, f"{whole[stem]}.{kind}", value, half=False)
    close_writer(writer)


def _add_half(writer: gguf.GGUFWriter, name: str, value: NDArray[np.float32], half: bool = True) -> None:
    writer.add_tensor(name, value.astype(np.float16) if half and value.ndim > 1 else value)


if __name__ == "__main__":
    torch.set_num_threads(1)
    for written in convert(Path(sys.argv[1]), Path(sys.argv[2])):
        print(written, written.stat().st_size)
