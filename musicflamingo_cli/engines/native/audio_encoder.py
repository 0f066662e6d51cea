"""The audio encoder of engine `native`: clips go through it in windows of 30 s, as in the published processor.

Each window is given to llama.cpp by itself, and of a partial one only the embeddings that stand for audio reach the
language model. So builds with and without our patch get the same number of tokens; without it, the encoder itself
still hears silence after the audio of a partial window.
"""

from __future__ import annotations

import argparse
import ctypes
import os
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from musicflamingo_cli.engines.native.libraries import Libraries
from musicflamingo_cli.llamacpp.binaries import FLASH_ATTENTION
from musicflamingo_cli.types import TOKENS_PER_WINDOW, WINDOW_SAMPLES, trimmed_tokens


@dataclass(frozen=True, slots=True)
class Chunk:
    """One of llama.cpp's chunks: text, or a window of audio with so many ``audio_tokens``."""

    handle: Any
    audio_tokens: int = 0


@dataclass(slots=True)
class PreparedAudio:
    """The text before the audio, and the spectrograms of its windows. ``owners``: the lists that hold the chunks."""

    chunks: list[Chunk] = field(default_factory=list)
    owners: list[Any] = field(default_factory=list)


class AudioEncoder:
    """A projector with its encoder."""

    def __init__(self, libraries: Libraries, model: Any, options: argparse.Namespace) -> None:
        """Load the projector, as the worker's ``options`` say. Raises RuntimeError where that fails."""
        self._llama, self._mtmd = libraries.llama, libraries.mtmd
        settings = self._mtmd.mtmd_context_params_default()
        settings.warmup, settings.print_timings, settings.use_gpu = False, False, options.gpu_layers != 0
        settings.n_threads = options.threads
        if options.flash_attention:
            settings.flash_attn_type = FLASH_ATTENTION[options.flash_attention]
        self._encoder = self._mtmd.mtmd_init_from_file(os.fsencode(options.mmproj), model, settings)
        if not self._encoder:
            raise RuntimeError("the projector could not be loaded")
        self._width = self._llama.llama_model_n_embd(model)
        self._batch = self._llama.llama_batch_init(TOKENS_PER_WINDOW, self._width, 1)

    def prepare(self, before: str, clips: Sequence[NDArray[np.float32]]) -> PreparedAudio:
        """Return text and mel spectrograms, which the caller must free. On the CPU, from any thread.

        ``before`` is the template's text before the audio, ``clips`` are mono at 16 kHz. Raises RuntimeError.
        """
        prepared = PreparedAudio()
        try:
            for clip in clips:
                for start in range(0, len(clip), WINDOW_SAMPLES):
                    self._add_window(prepared, before, clip[start : start + WINDOW_SAMPLES], is_first=start == 0)
        except RuntimeError:
            self.free(prepared)
            raise
        return prepared

    def free(self, prepared: PreparedAudio) -> None:
        """Free what was prepared."""
        for owner in prepared.owners:
            self._mtmd.mtmd_input_chunks_free(owner)

    def _add_window(self, prepared: PreparedAudio, before: str, window: NDArray[np.float32], is_first: bool) -> None:
        """Add a window, and what llama.cpp writes before the first one of a clip. Raises RuntimeError."""
        tokens = trimmed_tokens(len(window))
        if not tokens:  # the end of a clip, less than 20 ms long
            return
        mtmd = self._mtmd
        chunks = self._tokenize(window, None if prepared.chunks else before)
        prepared.owners.append(chunks)
        for index in range(mtmd.mtmd_input_chunks_size(chunks)):
            handle = mtmd.mtmd_input_chunks_get(chunks, index)
            if mtmd.mtmd_input_chunk_get_type(handle) == mtmd.MTMD_INPUT_CHUNK_TYPE_AUDIO:
                prepared.chunks.append(Chunk(handle, min(tokens, mtmd.mtmd_input_chunk_get_n_tokens(handle))))
                return  # without our patch, a window of exactly 30 s is followed by one of silence
            if is_first:
                prepared.chunks.append(Chunk(handle))

    def _tokenize(self, window: NDArray[np.float32], before: str | None) -> Any:
        """Return the chunks of a window after a text. Raises RuntimeError."""
        mtmd = self._mtmd
        samples = window.ctypes.data_as(ctypes.POINTER(ctypes.c_float))
        bitmap = mtmd.mtmd_bitmap_init_from_audio(len(window), samples)
        # As separate parts, so that a media marker in the text is taken as text.
        parts = [mtmd.mtmd_input_part(None, bitmap)]
        if before is not None:
            data = before.encode()
            text = mtmd.mtmd_input_text(data, len(data), False, True)
            parts.insert(0, mtmd.mtmd_input_part(ctypes.pointer(text), None))
        pointers = (ctypes.POINTER(mtmd.mtmd_input_part) * len(parts))(*map(ctypes.pointer, parts))
        chunks = mtmd.mtmd_input_chunks_init()
        failed = mtmd.mtmd_tokenize_from_parts(self._encoder, chunks, pointers, len(parts), before is not None)
        mtmd.mtmd_bitmap_free(bitmap)
        if failed:
            mtmd.mtmd_input_chunks_free(chunks)
            raise RuntimeError(f"the audio could not be prepared ({failed})")
        return chunks

    def prefill(self, prepared: PreparedAudio, context: Any, sequence: int) -> tuple[int, int]:
        """Encode what was prepared, and prefill it into a sequence of a language model's context.

        Return the position after it, and how many of its tokens were audio. Raises RuntimeError.
        """
        position = audio_tokens = 0
        for chunk in prepared.chunks:
            if chunk.audio_tokens:
                self._prefill_audio(chunk, context, sequence, position)
                position += chunk.audio_tokens
                audio_tokens += chunk.audio_tokens
            else:
                position = self._prefill_text(chunk, context, sequence, position)
        return position, audio_tokens

    def _prefill_text(self, chunk: Chunk, context: Any, sequence: int, position: int) -> int:
        end = self._llama.llama_pos(position)
        failed = self._mtmd.mtmd_helper_eval_chunk_single(
            self._encoder, context, chunk.handle, position, sequence, TOKENS_PER_WINDOW, False, ctypes.byref(end)
        )
        if failed:
            raise RuntimeError(f"the text before the audio could not be decoded ({failed})")
        return int(end.value)

    def _prefill_audio(self, chunk: Chunk, context: Any, sequence: int, position: int) -> None:
        """Encode a window, and decode its first embeddings in one batch. Raises RuntimeError."""
        if failed := self._mtmd.mtmd_encode_chunk(self._encoder, chunk.handle):
            raise RuntimeError(f"the audio could not be encoded ({failed})")
        batch = self._batch
        batch.n_tokens = chunk.audio_tokens
        embeddings = self._mtmd.mtmd_get_output_embd(self._encoder)
        ctypes.memmove(batch.embd, embeddings, chunk.audio_tokens * self._width * ctypes.sizeof(ctypes.c_float))
        for index in range(chunk.audio_tokens):
            batch.pos[index] = position + index
            batch.n_seq_id[index], batch.seq_id[index][0] = 1, sequence
            batch.logits[index] = False
        if failed := self._llama.llama_decode(context, batch):
            raise RuntimeError(f"the audio could not be decoded ({failed})")
