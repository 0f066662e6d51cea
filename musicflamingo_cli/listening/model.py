"""A MusicGen checkpoint in transformers: from captions to audio. Used in the worker process only.

The steps are those of `MusicgenForConditionalGeneration.generate` (and of MusicGen Melody's), with two differences:
each clip has a random stream of its own, and is decoded alone, so that it is the same in any batch. Greedy clips are
the same as `generate` makes (tests/listening/test_model.py).
"""

from __future__ import annotations

import argparse
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import soundfile

from musicflamingo_cli.config import GenerationSettings
from musicflamingo_cli.engines.transformers.model import best_device
from musicflamingo_cli.listening.messages import ClipOrder
from musicflamingo_cli.listening.sampling import ClipSampler
from musicflamingo_cli.models.checkpoints import MELODY

if TYPE_CHECKING:
    from numpy.typing import NDArray
    from torch import Tensor

TEXT_LIMIT = 512  # T5 tokens that the text encoder was trained on, with the end


@dataclass(frozen=True, slots=True)
class Caption:
    """A caption as the text encoder gets it. ``tokens``: of the whole; ``read``: characters that are left of it."""

    ids: tuple[int, ...]
    tokens: int
    read: int


class Model:
    """A loaded checkpoint and its tokenizer. ``rate``: of its audio, in Hz. ``channels``: 1 or 2."""

    def __init__(self, options: argparse.Namespace) -> None:
        """Load it as the worker's ``options`` say. Raises whatever transformers raises."""
        import torch
        from transformers import AutoTokenizer
        from transformers.utils import logging

        logging.set_verbosity_error()
        logging.disable_progress_bar()
        if options.threads:
            torch.set_num_threads(options.threads)
        self.device = torch.device(options.device or best_device())
        folder = str(Path(options.folder))
        self._tokenizer = AutoTokenizer.from_pretrained(folder, local_files_only=True)
        self._net = _load(folder).to(self.device).eval()
        config = self._net.config
        self.is_melody = config.model_type == MELODY
        self.rate: int = config.audio_encoder.sampling_rate
        self.channels: int = config.decoder.audio_channels
        self._hop: int = config.audio_encoder.hop_length
        self._codebooks: int = config.decoder.num_codebooks
        self._start: int = self._net.generation_config.decoder_start_token_id or config.decoder.pad_token_id
        self.details = {"device": str(self.device), "torch": torch.__version__}

    def samples(self, seconds: float) -> int:
        """Return how many samples a clip of so many seconds has."""
        return round(seconds * self.rate)

    def caption(self, text: str) -> Caption:
        """Return a caption's tokens, cut at what the text encoder reads."""
        whole = self._tokenizer(text, truncation=False, verbose=False).input_ids
        limit = min(TEXT_LIMIT, self._tokenizer.model_max_length)
        if len(whole) <= limit:
            return Caption(tuple(whole), len(whole), len(text))
        cut = self._tokenizer(text, truncation=True, max_length=limit, return_offsets_mapping=True)
        return Caption(tuple(cut.input_ids), len(whole), max(end for _, end in cut["offset_mapping"]))

    def make(
        self, orders: Sequence[ClipOrder], settings: GenerationSettings, on_step: Callable[[float], None]
    ) -> list[NDArray[np.float32]]:
        """Return a clip for each order, shape (samples, channels). ``on_step`` gets the share that is done."""
        import torch

        with torch.inference_mode():
            samples = self.samples(settings.seconds)
            frames = math.ceil(samples / self._hop)
            codes = self._codes(orders, settings, frames, on_step)
            return [self._decoded(row[:, :frames])[:samples] for row in codes]

    def _codes(
        self, orders: Sequence[ClipOrder], settings: GenerationSettings, frames: int, on_step: Callable[[float], None]
    ) -> Tensor:
        """Return the audio codes of each clip, shape (clips, codebooks, frames)."""
        import torch

        decoder, clips = self._net.decoder, len(orders)
        given = torch.full((clips * self._codebooks, 1), self._start, device=self.device)
        if orders[0].start:
            given = torch.cat([given, torch.cat([self._encoded(order.start, frames) for order in orders])], dim=1)
        delay = self._codebooks // self.channels  # each codebook is a step behind the one before it
        length = frames + delay
        tokens, pattern = decoder.build_delay_pattern_mask(given, pad_token_id=self._start, max_length=length)
        first = tokens.shape[1]
        is_guided = settings.guidance > 1 and any(order.text is not None for order in orders)
        states = self._states(orders, is_guided)
        sampler = ClipSampler(settings, clips)
        cache: Any = None
        new = decoder.apply_delay_pattern_mask(tokens, pattern)
        while tokens.shape[1] < length:
            out = decoder(
                input_ids=new.repeat(2 if is_guided else 1, 1), past_key_values=cache, use_cache=True, **states
            )
            cache = out.past_key_values
            if self.is_melody:
                states = {}  # they come before the first token, and are in the cache from then on
            logits = out.logits[:, -1].float().reshape(-1, self._codebooks, out.logits.shape[-1])
            if is_guided:
                conditional, free = logits.chunk(2)
                logits = free + settings.guidance * (conditional - free)
            drawn = sampler.next_tokens(logits).to(self.device).reshape(-1, 1)
            tokens = decoder.apply_delay_pattern_mask(torch.cat([tokens, drawn], dim=1), pattern)
            new = tokens[:, -1:]
            on_step((tokens.shape[1] - first) / (length - first))
        return tokens[tokens != self._start].reshape(clips, self._codebooks, -1)

    def _states(self, orders: Sequence[ClipOrder], is_guided: bool) -> dict[str, Tensor]:
        """Return the decoder's conditions: those of the captions, and with guidance as many empty ones after them."""
        import torch

        captions = [self.caption(order.text) if order.text is not None else None for order in orders]
        longest = max(len(each.ids) if each else 1 for each in captions)
        ids = torch.zeros((len(orders), longest), dtype=torch.long)
        mask = torch.zeros((len(orders), longest), dtype=torch.long)
        for row, each in enumerate(captions):
            if each:
                ids[row, : len(each.ids)] = torch.tensor(each.ids)
                mask[row, : len(each.ids)] = 1
        ids, mask = ids.to(self.device), mask.to(self.device)
        # A row without a caption attends to one padding token here, or its encoder states would be undefined.
        seen = mask.clone()
        seen[mask.sum(dim=1) == 0, 0] = 1
        states = self._net.text_encoder(input_ids=ids, attention_mask=seen).last_hidden_state
        if self._net.text_encoder.config.hidden_size != self._net.decoder.config.hidden_size:
            states = self._net.enc_to_dec_proj(states)
        states = states * mask[..., None]
        if is_guided:
            states, mask = torch.cat([states, torch.zeros_like(states)]), torch.cat([mask, torch.zeros_like(mask)])
        if self.is_melody:
            return {"encoder_hidden_states": torch.cat([self._melody(orders, is_guided), states], dim=1)}
        return {"encoder_hidden_states": states, "encoder_attention_mask": mask}

    def _melody(self, orders: Sequence[ClipOrder], is_guided: bool) -> Tensor:
        """Return the melodies' states, shape (rows, chroma length, width); without a melody those of silence."""
        import torch

        from musicflamingo_cli.listening.chroma import chroma

        config = self._net.config
        silence = torch.zeros((1, config.num_chroma))
        silence[:, 0] = 1
        rows = [
            chroma(_read(order.melody)[:, 0], self.rate, config.num_chroma) if order.melody else silence
            for order in orders
        ]
        rows += [silence] * len(orders) if is_guided else []
        length = config.chroma_length
        filled = [row.repeat(-(-length // len(row)), 1)[:length] for row in rows]
        states: Tensor = self._net.audio_enc_to_dec_proj(torch.stack(filled).to(self.device))
        return states

    def _encoded(self, start: str, frames: int) -> Tensor:
        """Return the codes of the audio that a clip begins with, shape (codebooks, frames of it)."""
        import torch

        waves = torch.from_numpy(_read(start).T.copy()).to(self.device)  # (channels, samples)
        codes = [self._net.audio_encoder.encode(wave[None, None]).audio_codes[0, 0] for wave in waves]
        # Left and right take turns, codebook by codebook.
        joined: Tensor = torch.stack(codes, dim=1).reshape(self._codebooks, -1)
        return joined[:, : frames - 1]

    def _decoded(self, codes: Tensor) -> NDArray[np.float32]:
        """Return the audio of one clip's codes (codebooks, frames): (samples, channels). Raises ValueError for NaN."""
        import torch

        sides = [codes[side :: self.channels] for side in range(self.channels)]
        waves = [self._net.audio_encoder.decode(each[None, None], [None]).audio_values[0, 0] for each in sides]
        audio: NDArray[np.float32] = torch.stack(waves, dim=1).float().cpu().numpy()
        if not np.isfinite(audio).all():
            raise ValueError("the model's audio is not finite")
        return np.clip(audio, -1.0, 1.0)


def _load(folder: str) -> Any:
    """Return the network, in float32: EnCodec and T5 lose precision in 16 bits."""
    import torch
    from transformers import AutoConfig, MusicgenForConditionalGeneration, MusicgenMelodyForConditionalGeneration

    kind = AutoConfig.from_pretrained(folder, local_files_only=True).model_type
    which = MusicgenMelodyForConditionalGeneration if kind == MELODY else MusicgenForConditionalGeneration
    return which.from_pretrained(folder, local_files_only=True, use_safetensors=True, dtype=torch.float32)


def _read(wav: str) -> NDArray[np.float32]:
    """Return a WAV file's samples, shape (samples, channels)."""
    samples: NDArray[np.float32] = soundfile.read(wav, dtype="float32", always_2d=True)[0]
    return samples
