"""The tiny model as a checkpoint folder of Hugging Face transformers, made from the GGUF pair that comes with us.

The weights exist once, as GGUF; this is the inverse of `tiny_flamingo/convert.py`. Needs the packages `gguf`,
`tokenizers` and `safetensors` (extra `[transformers]`), and neither torch nor transformers.
"""

from __future__ import annotations

import contextlib
import json
import os
import re
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from musicflamingo_cli.models.checkpoints import AUDIO_FLAMINGO_3, CONFIG, MAX_SECONDS, MUSIC_FLAMINGO, TINY_KEY
from musicflamingo_cli.types import SAMPLE_RATE

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

CLASSES = {AUDIO_FLAMINGO_3: "AudioFlamingo3", MUSIC_FLAMINGO: "MusicFlamingo"}  # how its classes' names begin
END_OF_TEXT, START, END, SOUND = "<|endoftext|>", "<|im_start|>", "<|im_end|>", "<sound>"
SOUND_BEGIN, SOUND_END = "<|sound_bos|>", "<|sound_eos|>"  # around the audio, in MusicFlamingo only
# ChatML, with the audio before the text whatever their order is, as in the published checkpoints.
TEMPLATE = (
    "{% for message in messages %}<|im_start|>{{ message['role'] }}\n"
    "{% if message['content'] is string %}{{ message['content'] }}{% else %}"
    "{% for part in message['content'] if part['type'] != 'text' %}<sound>{% endfor %}"
    "{% for part in message['content'] if part['type'] == 'text' %}{{ part['text'] }}{% endfor %}{% endif %}"
    "<|im_end|>\n{% endfor %}{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)

_CONTROL = 3  # the type of a special token in GGUF
# How Qwen2 cuts a text into words, before byte pairs are merged.
_QWEN2 = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
)
# The beginnings of tensors' names in GGUF, and the same in checkpoints; {} is a layer's number.
_NAMES = {
    "token_embd": "language_model.model.embed_tokens",
    "output_norm": "language_model.model.norm",
    "output": "language_model.lm_head",
    "blk.{}.attn_norm": "language_model.model.layers.{}.input_layernorm",
    "blk.{}.ffn_norm": "language_model.model.layers.{}.post_attention_layernorm",
    "blk.{}.attn_q": "language_model.model.layers.{}.self_attn.q_proj",
    "blk.{}.attn_k": "language_model.model.layers.{}.self_attn.k_proj",
    "blk.{}.attn_v": "language_model.model.layers.{}.self_attn.v_proj",
    "blk.{}.attn_output": "language_model.model.layers.{}.self_attn.o_proj",
    "blk.{}.ffn_gate": "language_model.model.layers.{}.mlp.gate_proj",
    "blk.{}.ffn_up": "language_model.model.layers.{}.mlp.up_proj",
    "blk.{}.ffn_down": "language_model.model.layers.{}.mlp.down_proj",
    "a.conv1d.{}": "audio_tower.conv{}",
    "a.position_embd": "audio_tower.embed_positions",
    "a.post_ln": "audio_tower.layer_norm",
    "a.blk.{}.ln1": "audio_tower.layers.{}.self_attn_layer_norm",
    "a.blk.{}.ln2": "audio_tower.layers.{}.final_layer_norm",
    "a.blk.{}.attn_q": "audio_tower.layers.{}.self_attn.q_proj",
    "a.blk.{}.attn_k": "audio_tower.layers.{}.self_attn.k_proj",
    "a.blk.{}.attn_v": "audio_tower.layers.{}.self_attn.v_proj",
    "a.blk.{}.attn_out": "audio_tower.layers.{}.self_attn.out_proj",
    "a.blk.{}.ffn_up": "audio_tower.layers.{}.fc1",
    "a.blk.{}.ffn_down": "audio_tower.layers.{}.fc2",
    "mm.a.mlp.{}": "multi_modal_projector.linear_{}",
}


def write_checkpoint(language_model: Path, projector: Path, folder: Path, *, as_music_flamingo: bool = False) -> None:
    """Write the tiny GGUF pair as a checkpoint in float32, which `from_pretrained` and `AutoProcessor` load.

    The folder is complete under its name or not there at all; a checkpoint that is there already stays as it is. The
    model's class is AudioFlamingo3, in which it was trained, or MusicFlamingo with the same answers: its rotary time
    embeddings, unknown to these weights, get steps too small to turn anything. Raises ImportError without the packages
    named above.
    """
    if (folder / CONFIG).is_file():
        return
    import gguf

    model, encoder = gguf.GGUFReader(language_model), gguf.GGUFReader(projector)
    model_type = MUSIC_FLAMINGO if as_music_flamingo else AUDIO_FLAMINGO_3
    tokenizer = read_tokenizer(language_model, model_type)
    with complete_folder(folder) as part:
        config = _config(model, encoder, tokenizer, model_type)
        write_json(part / CONFIG, config)
        write_json(part / "generation_config.json", token_ids(tokenizer))
        write_processor(part, model_type, tokenizer, TEMPLATE)
        _write_weights(part / "model.safetensors", model, encoder, config["text_config"]["vocab_size"])


@contextlib.contextmanager
def complete_folder(folder: Path) -> Iterator[Path]:
    """Yield a temporary folder that is renamed to ``folder`` at the end, unless another process was faster."""
    folder.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=f".{folder.name}.", dir=folder.parent) as temporary:
        part = Path(temporary) / folder.name
        part.mkdir()
        yield part
        try:
            os.rename(part, folder)  # noqa: PTH104  (fails on a folder that is not empty)
        except OSError:
            if not (folder / CONFIG).is_file():
                raise


def read_tokenizer(language_model: Path, model_type: str) -> Any:
    """Return the GGUF file's tokenizer as a `tokenizers.Tokenizer`, with the class's special tokens added.

    It is byte-level BPE over Qwen2's words. Special tokens have the last ids.
    """
    import gguf
    from tokenizers import Tokenizer, models

    model = gguf.GGUFReader(language_model)
    tokens, types, merges = (_value(model, f"tokenizer.ggml.{name}") for name in ("tokens", "token_type", "merges"))
    first = types.index(_CONTROL)
    pairs = [(left, right) for left, _, right in (merge.partition(" ") for merge in merges)]
    tokenizer = Tokenizer(models.BPE({token: number for number, token in enumerate(tokens[:first])}, pairs))
    split_as_qwen2(tokenizer)
    tokenizer.add_special_tokens(tokens[first:] + ([SOUND_BEGIN, SOUND_END] if model_type == MUSIC_FLAMINGO else []))
    return tokenizer


def split_as_qwen2(tokenizer: Any) -> None:
    """Let a `tokenizers.Tokenizer` cut texts into Qwen2's words, and those into bytes."""
    from tokenizers import Regex, decoders, pre_tokenizers

    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split(Regex(_QWEN2), behavior="isolated"),
            pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
        ]
    )
    tokenizer.decoder = decoders.ByteLevel()


def token_ids(tokenizer: Any) -> dict[str, Any]:
    """Return the ids with which generation ends and pads, as generation_config.json has them."""
    end, pad = tokenizer.token_to_id(END), tokenizer.token_to_id(END_OF_TEXT)
    return {"eos_token_id": [end, pad], "pad_token_id": pad}


def write_processor(
    folder: Path, model_type: str, tokenizer: Any, template: str, max_audio_seconds: int | None = None
) -> None:
    """Write the files of the processor and its tokenizer. ``max_audio_seconds``: None for the class's own limit."""
    tokenizer.save(str(folder / "tokenizer.json"))
    processor_class = f"{CLASSES[model_type]}Processor"
    write_json(
        folder / "tokenizer_config.json",
        {
            "tokenizer_class": "PreTrainedTokenizerFast",
            "processor_class": processor_class,
            "eos_token": END,
            "pad_token": END_OF_TEXT,
        },
    )
    extractor = {
        "feature_extractor_type": "WhisperFeatureExtractor",
        "feature_size": 128,
        "sampling_rate": SAMPLE_RATE,
        "chunk_length": 30,
        "return_attention_mask": True,
    }
    processor = {
        "processor_class": processor_class,
        "feature_extractor": extractor,
        "audio_token": SOUND,
        "max_audio_len": max_audio_seconds or int(MAX_SECONDS[model_type]),
    }
    write_json(folder / "processor_config.json", processor)
    (folder / "chat_template.jinja").write_text(template, encoding="utf-8")


def write_json(path: Path, values: dict[str, Any]) -> None:
    """Write ``values``, indented."""
    path.write_text(json.dumps(values, indent=2) + "\n", encoding="utf-8")


def _value(reader: Any, key: str) -> Any:
    return reader.fields[key].contents()


def _config(model: Any, encoder: Any, tokenizer: Any, model_type: str) -> dict[str, Any]:
    width = _value(model, "qwen2.embedding_length")
    audio = {
        "model_type": "audioflamingo3_encoder",
        "num_mel_bins": _value(encoder, "clip.audio.num_mel_bins"),
        "hidden_size": _value(encoder, "clip.audio.embedding_length"),
        "num_hidden_layers": _value(encoder, "clip.audio.block_count"),
        "num_attention_heads": _value(encoder, "clip.audio.attention.head_count"),
        "intermediate_size": _value(encoder, "clip.audio.feed_forward_length"),
    }
    text = {
        "model_type": "qwen2",
        "vocab_size": tokenizer.get_vocab_size(),
        "hidden_size": width,
        "intermediate_size": _value(model, "qwen2.feed_forward_length"),
        "num_hidden_layers": _value(model, "qwen2.block_count"),
        "num_attention_heads": _value(model, "qwen2.attention.head_count"),
        "num_key_value_heads": _value(model, "qwen2.attention.head_count_kv"),
        "max_position_embeddings": _value(model, "qwen2.context_length"),
        "rms_norm_eps": 1e-6,
        "rope_parameters": {"rope_type": "default", "rope_theta": _value(model, "qwen2.rope.freq_base")},
        "tie_word_embeddings": False,
        "bos_token_id": None,
        **token_ids(tokenizer),
    }
    return {
        "model_type": model_type,
        "architectures": [f"{CLASSES[model_type]}ForConditionalGeneration"],
        "dtype": "float32",
        TINY_KEY: True,
        "audio_config": audio,
        "text_config": text,
        **audio_ids(tokenizer, model_type),
        **({"audio_frame_step": 1e-9} if model_type == MUSIC_FLAMINGO else {}),  # seconds, 0.01 in the trained ones
    }


def audio_ids(tokenizer: Any, model_type: str) -> dict[str, int]:
    """Return config.json's ids of the tokens that stand for and around the audio."""
    ids = {"audio_token_id": tokenizer.token_to_id(SOUND)}
    if model_type == MUSIC_FLAMINGO:
        ids["audio_bos_token_id"] = tokenizer.token_to_id(SOUND_BEGIN)
        ids["audio_eos_token_id"] = tokenizer.token_to_id(SOUND_END)
    return ids


def _write_weights(path: Path, model: Any, encoder: Any, vocabulary: int) -> None:
    """Write all tensors; rows of zeros for the tokens that the GGUF file lacks."""
    import numpy as np
    from safetensors.numpy import save_file

    weights = {_renamed(tensor.name): _dequantised(tensor) for tensor in [*model.tensors, *encoder.tensors]}
    for name in ("language_model.model.embed_tokens.weight", "language_model.lm_head.weight"):
        weights[name] = np.pad(weights[name], ((0, vocabulary - len(weights[name])), (0, 0)))
    save_file(weights, path, metadata={"format": "pt"})


def _renamed(name: str) -> str:
    stem, _, kind = name.rpartition(".")
    number = re.search(r"(?<=\.)\d+", stem)  # of a layer; not that in `conv1d`
    return _NAMES[re.sub(r"(?<=\.)\d+", "{}", stem)].format(number[0] if number else "") + f".{kind}"


def _dequantised(tensor: Any) -> NDArray[np.float32]:
    import gguf
    import numpy as np

    values = gguf.quants.dequantize(tensor.data, tensor.tensor_type).astype(np.float32)
    return np.ascontiguousarray(values.reshape(-1) if tensor.name.endswith("bias") else values)
