"""A checkpoint in transformers: loaded, its audio heard, its language model asked. Used in the worker process only.

How the parts are called follows the published recipe (the model cards' `apply_chat_template` and `generate`); that the
audio goes through the encoder and the language model only once for all questions is ours. The greedy answers are the
same (tests/engines/transformers).
"""

from __future__ import annotations

import argparse
import importlib.metadata
import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from musicflamingo_cli.choices import Quantization
from musicflamingo_cli.engines.conversation import messages
from musicflamingo_cli.engines.transformers.attention import Prefix, shared
from musicflamingo_cli.engines.transformers.cache import split
from musicflamingo_cli.types import SAMPLE_RATE, WINDOW_SAMPLES, Prompt

if TYPE_CHECKING:
    from numpy.typing import NDArray
    from torch import Tensor

# The last window's first 20 ms make no token, and the class MusicFlamingo fails with an IndexError there.
_TOO_SHORT_WINDOW = 320  # samples
_AUDIO = {"type": "audio", "path": "-"}  # what a template needs to see; the audio itself goes another way


@dataclass(slots=True)
class Features:
    """A clip as the encoder takes it. ``ids``: its place in the prompt, with the tokens around the audio."""

    mel: Tensor  # (windows, bins, frames)
    mask: Tensor  # (windows, frames)
    ids: Tensor  # (length,)


class Model:
    """A loaded checkpoint and its processor."""

    def __init__(self, options: argparse.Namespace) -> None:
        """Load it as the worker's ``options`` say. Raises whatever transformers raises."""
        import torch
        from transformers import AutoProcessor

        if options.threads:
            torch.set_num_threads(options.threads)
        self.device = torch.device(options.device or best_device())
        self.dtype = _dtype_for(self.device)
        folder = str(Path(options.folder))
        # Not to stop at its own limit with a warning: the clip was cut to the model's length before.
        # One for each of the worker's threads: a tokenizer whose padding is being set cannot be used meanwhile.
        self._for_audio, self._for_text = (
            AutoProcessor.from_pretrained(folder, max_audio_len=10**6, local_files_only=True) for _ in range(2)
        )
        self.tokenizer = self._for_text.tokenizer
        self.net = _load(folder, self.device, self.dtype, options)
        if options.lora:
            self.net = _with_adapter(self.net, options.lora)
        self.audio_token = self._for_text.audio_token
        self.ends = _end_tokens(self.net, self.tokenizer)
        self.pad = self.tokenizer.pad_token_id or 0
        self.encoder_calls = 0
        self.details = {
            "transformers": importlib.metadata.version("transformers"),
            "torch": torch.__version__,
            "device": _device_name(self.device),
            "dtype": str(self.dtype).removeprefix("torch."),
            "attention": options.attention,
            "quantization": options.quantize,
        }

    # -- text --

    def split(self, prompt: Prompt, clips: int) -> tuple[list[str], str]:
        """Return a prompt in the checkpoint's own template: the texts before each of its clips, and the text after.

        Raises ValueError where the template does not place the audio.
        """
        said = messages(prompt, [_AUDIO] * clips)
        text = self._for_audio.apply_chat_template(said, tokenize=False, add_generation_prompt=True)
        parts = text.split(self.audio_token)
        if len(parts) != clips + 1:
            raise ValueError(f"the chat template has {len(parts) - 1} places for {clips} clips of audio")
        return parts[:-1], parts[-1]

    def ids(self, text: str) -> Tensor:
        """Return the tokens of a text of the template, special tokens included: (length,)."""
        ids: Tensor = self.tokenizer(text, add_special_tokens=False, return_tensors="pt").input_ids[0].long()
        return ids

    def text_of(self, tokens: Sequence[int]) -> str:
        """Return the text of an answer's tokens."""
        return str(self.tokenizer.decode(list(tokens), skip_special_tokens=True))

    # -- audio --

    def features(self, samples: NDArray[np.float32]) -> Features:
        """Return what the encoder gets of a clip of mono samples at 16 kHz; on the CPU, from any thread."""
        rest = len(samples) % WINDOW_SAMPLES
        if 0 < rest <= _TOO_SHORT_WINDOW and len(samples) > WINDOW_SAMPLES:
            samples = samples[: len(samples) - rest]
        # This form of the call does not let a template decide where the audio goes.
        done = self._for_audio(text=[self.audio_token], audio=[samples], sampling_rate=SAMPLE_RATE, return_tensors="pt")
        return Features(done["input_features"], done["input_features_mask"], done["input_ids"][0])

    def hear(self, features: Features) -> Tensor:
        """Return the clip's place in a prompt as vectors, (length, width): text tokens around the encoded audio."""
        self.encoder_calls += 1
        return self.place(features.ids, features.mel.to(self.device, self.dtype), features.mask)

    def place(self, ids: Tensor, mel: Tensor | None, mask: Tensor) -> Tensor:
        """See ``hear``. ``mel`` is None where the encoder's output is known (finetuning.student)."""
        net = self.net.model
        ids = ids[None].to(self.device)
        given: dict[str, Any] = {"input_features": mel, "input_features_mask": mask.to(self.device)}
        if hasattr(net, "pos_emb"):  # MusicFlamingo reads the windows' times from the placeholders
            given["input_ids"] = ids
        audio = net.get_audio_features(**given, return_dict=True).pooler_output
        vectors = net.get_input_embeddings()(ids)
        placeholders = (ids == self.net.config.audio_token_id)[..., None].expand_as(vectors)
        heard: Tensor = vectors.masked_scatter(placeholders, audio.to(vectors.device, vectors.dtype))[0]
        return heard

    def vectors(self, text: str) -> Tensor:
        """Return the vectors of a text of the template, (length, width)."""
        found: Tensor = self.net.model.get_input_embeddings()(self.ids(text).to(self.device))
        return found

    def audio_tokens(self, features: Sequence[Features]) -> int:
        """Return how many tokens of audio a prompt with these clips has."""
        return sum(int((each.ids == self.net.config.audio_token_id).sum()) for each in features)

    # -- the language model --

    def prefill(self, rows: Sequence[Tensor], audio_tokens: Sequence[int]) -> list[Prefix]:
        """Process rows of vectors, each (length, width), in one batch padded on the left; keep what it remembers."""
        import torch
        from transformers import DynamicCache

        lengths = [len(row) for row in rows]
        longest = max(lengths)
        batch = rows[0].new_zeros((len(rows), longest, rows[0].shape[-1]))
        mask = torch.zeros((len(rows), longest), dtype=torch.long, device=self.device)
        for index, row in enumerate(rows):
            batch[index, longest - len(row) :] = row
            mask[index, longest - len(row) :] = 1
        cache = DynamicCache(config=self.net.config.get_text_config())
        self.net(
            inputs_embeds=batch,
            attention_mask=None if bool(mask.all()) else mask,  # without one, attention takes its fastest form
            position_ids=(mask.cumsum(-1) - 1).clamp(min=0),
            past_key_values=cache,
            use_cache=True,
            logits_to_keep=1,  # the scores of 30,000 positions would be 9 GB
        )
        return split(cache, lengths, audio_tokens)

    def nothing(self) -> Prefix:
        """Return the memory of no audio at all, for questions in words only."""
        import torch

        config = self.net.config.get_text_config()
        size = getattr(config, "head_dim", None) or config.hidden_size // config.num_attention_heads
        empty = torch.zeros((config.num_key_value_heads, 0, size), device=self.device, dtype=self.dtype)
        return Prefix([(empty, empty)] * config.num_hidden_layers, 0)

    def continue_from(self, prefixes: Sequence[Prefix], cache: Any, mask: Tensor, ids: Tensor) -> Tensor:
        """Process new tokens after the audio; return the scores after the last one, (rows, vocabulary).

        ``prefixes``: what each row continues. ``cache`` and ``mask``: what follows the audio so far; the mask, (rows,
        tokens), includes the new ones and is 0 where there is padding. ``ids``: the new ones, (rows, new).
        """
        import torch

        new, length = ids.shape[1], mask.shape[1]
        heard = torch.tensor([prefix.length for prefix in prefixes], device=self.device)
        at = torch.arange(length, device=self.device)
        may_look = (at[None, :] <= at[length - new :, None])[None, None] & mask.bool()[:, None, None, :]
        with shared(self.net.config.get_text_config()):
            done = self.net(
                input_ids=ids,
                attention_mask=may_look,
                position_ids=heard[:, None] + (mask.cumsum(-1) - 1).clamp(min=0)[:, -new:],
                past_key_values=cache,
                use_cache=True,
                logits_to_keep=1,
                prefixes=prefixes,
            )
        scores: Tensor = done.logits[:, -1]
        return scores


def best_device() -> str:
    """Return the name of the fastest device that torch sees; ROCm's GPUs are called cuda, too."""
    import torch

    if torch.cuda.is_available():
        return "cuda"
    return "mps" if torch.backends.mps.is_available() else "cpu"


def _device_name(device: Any) -> str:
    import torch

    return torch.cuda.get_device_name(device) if device.type == "cuda" else str(device)


def _dtype_for(device: Any) -> Any:
    """bf16, in which the weights are published, where the device computes in it; else float32."""
    import torch

    if device.type == "cuda" and torch.cuda.is_bf16_supported():
        return torch.bfloat16
    return torch.float16 if device.type == "mps" else torch.float32


def _load(folder: str, device: Any, dtype: Any, options: argparse.Namespace) -> Any:
    """Return the model, ready to answer. With ``dtype`` given here its rotary buffers stay in float32."""
    from transformers import AutoModelForSeq2SeqLM, logging

    logging.set_verbosity_error()  # "exceeded maximum length (1200)" beyond 48 s of audio, which is harmless
    logging.disable_progress_bar()
    warnings.filterwarnings("ignore", category=UserWarning)
    given: dict[str, Any] = {"dtype": dtype, "attn_implementation": options.attention, "local_files_only": True}
    if options.quantize != Quantization.NONE:
        given["quantization_config"] = _quantization(options.quantize, dtype)
    if device.type != "cpu" or options.quantize != Quantization.NONE:
        given["device_map"] = {"": str(device)}  # straight to the device, without a copy in main memory
    # The mapping that has both classes; AutoModelForMultimodalLM does not know them (transformers 5.23).
    return AutoModelForSeq2SeqLM.from_pretrained(folder, **given).eval()


def _with_adapter(net: Any, folder: str) -> Any:
    """Return the model with an adapter's matrices beside its own, in float32 as they were trained; not merged.

    Merging would round small changes away in bf16, and quantised weights cannot take them.
    """
    from peft import PeftModel

    return PeftModel.from_pretrained(net, folder, local_files_only=True).get_base_model().eval()


def _quantization(name: str, dtype: Any) -> Any:
    """Return the settings for fewer bits; the audio encoder, its projector and the output layer keep all of theirs."""
    kept = ["model.audio_tower", "model.multi_modal_projector", "lm_head"]
    if name == Quantization.INT8:
        from torchao.quantization import Int8WeightOnlyConfig
        from transformers import TorchAoConfig

        return TorchAoConfig(Int8WeightOnlyConfig(), modules_to_not_convert=kept)
    from transformers import BitsAndBytesConfig

    if name == Quantization.EIGHT_BIT:
        return BitsAndBytesConfig(load_in_8bit=True, llm_int8_skip_modules=kept)
    return BitsAndBytesConfig(
        load_in_4bit=True, bnb_4bit_quant_type="nf4", bnb_4bit_compute_dtype=dtype, llm_int8_skip_modules=kept
    )


def _end_tokens(net: Any, tokenizer: Any) -> frozenset[int]:
    """Return the tokens that end an answer, from wherever the checkpoint names them."""
    named = [net.generation_config.eos_token_id, net.config.get_text_config().eos_token_id, tokenizer.eos_token_id]
    found: set[int] = set()
    for each in named:
        found.update(each if isinstance(each, (list, tuple)) else [] if each is None else [each])
    return frozenset(found)
