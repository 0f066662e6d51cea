"""llama.cpp's libraries as engine `native` uses them: a model with ears, one context that all lanes share.

In the worker's process only (native_worker.py): llama.cpp ends its process where an assertion fails.
"""

from __future__ import annotations

import argparse
import ctypes
import logging
import os
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from musicflamingo_cli.engines.native.messages import BINDINGS, SEQUENCES, Question, Track

_BATCH = 2048  # tokens, llama.cpp's own default
# What llama.cpp's tools have beside the settings that are ours (common.h, common_params_sampling).
_TOP_K, _MIN_P, _PENALTY_LAST_N = 40, 0.05, 64


@dataclass(slots=True)
class Answering:
    """A sequence in the middle of its answer."""

    question: Question
    lane: int
    sequence: int
    sampler: Any
    position: int
    audio_tokens: int
    hearing: float
    tail: Sequence[int] = ()
    started: float = field(default_factory=time.monotonic)
    token: int = 0
    said: bytearray = field(default_factory=bytearray)
    count: int = 0


class Libraries:
    """llama.cpp through its low-level bindings. Raises ImportError or OSError where they do not load."""

    def __init__(self) -> None:
        import llama_cpp
        from llama_cpp import llama_cpp as llama
        from llama_cpp import mtmd_cpp as mtmd

        # The bindings print what llama.cpp means for debugging, too, of which some reads like faults.
        logging.getLogger("llama-cpp-python").setLevel(logging.INFO)
        if llama_cpp.__version__ != BINDINGS:
            raise ImportError(f"llama-cpp-python {llama_cpp.__version__} is here, {BINDINGS} is needed")
        self.llama, self.mtmd = llama, mtmd
        context, audio = llama.llama_context_default_params(), mtmd.mtmd_context_params_default()
        # Spread over the structures: where a field has moved, these are not what upstream's defaults are.
        seen = [context.n_ctx, context.n_batch, context.n_ubatch, context.rope_scaling_type, context.yarn_ext_factor]
        seen += [context.type_k, context.no_perf, context.n_samplers, audio.n_threads, audio.flash_attn_type]
        seen += [audio.warmup, audio.image_min_tokens, audio.batch_max_tokens]
        if seen != [512, 2048, 512, -1, -1.0, 1, True, 0, 4, -1, True, -1, 1024]:
            raise ImportError(f"llama.cpp's libraries are not those that the bindings describe ({seen})")


class Model:
    """A model and its projector, and one context whose cells all lanes share."""

    def __init__(self, options: argparse.Namespace) -> None:
        self.libraries = Libraries()
        llama, mtmd = self.libraries.llama, self.libraries.mtmd
        llama.llama_backend_init()
        settings = llama.llama_model_default_params()
        if options.gpu_layers is not None:
            settings.n_gpu_layers = options.gpu_layers
        self.model = llama.llama_model_load_from_file(os.fsencode(options.model), settings)
        if not self.model:
            raise RuntimeError("error loading model")  # llama_cpp.diagnose knows these words
        self.vocabulary = llama.llama_model_get_vocab(self.model)
        self.context = self._new_context(options)
        self.memory = llama.llama_get_memory(self.context)
        audio = mtmd.mtmd_context_params_default()
        audio.warmup, audio.print_timings, audio.use_gpu = False, False, options.gpu_layers != 0
        audio.n_threads = options.threads
        self.ears = mtmd.mtmd_init_from_file(os.fsencode(options.mmproj), self.model, audio)
        if not self.ears:
            raise RuntimeError("the projector could not be loaded")
        self.template = _template(llama.llama_model_chat_template(self.model, None))
        self._batch = llama.llama_batch_init(_BATCH, 0, 1)

    def _new_context(self, options: argparse.Namespace) -> Any:
        llama = self.libraries.llama
        settings = llama.llama_context_default_params()
        settings.n_ctx = options.context * options.lanes
        settings.n_seq_max = SEQUENCES * options.lanes
        settings.kv_unified = True  # without it every sequence would have its own part, and a copy would be a copy
        settings.n_threads = settings.n_threads_batch = options.threads
        context = llama.llama_init_from_model(self.model, settings)
        if not context:
            raise RuntimeError("the context could not be made")
        return context

    # -- text --

    def split(self, question: Question) -> tuple[str, str]:
        """A prompt in the model's own template: what stands before the audio, and after it."""
        audio = "\0audio\0"
        messages = [{"role": "user", "content": audio + question.text}]
        if question.system:
            messages.insert(0, {"role": "system", "content": question.system})
        before, after = self.template.render(messages=messages, add_generation_prompt=True).split(audio)
        return before, after

    def tokens(self, text: str) -> list[int]:
        llama, data = self.libraries.llama, text.encode()
        room = (llama.llama_token * (len(data) + 8))()
        count = llama.llama_tokenize(self.vocabulary, data, len(data), room, len(room), False, True)
        return list(room[:count])

    def piece(self, token: int, size: int = 256) -> bytes:
        room = ctypes.create_string_buffer(size)
        length = self.libraries.llama.llama_token_to_piece(self.vocabulary, token, room, size, 0, True)
        return room.raw[:length] if length >= 0 else self.piece(token, -length)  # it says how much it needs

    def is_end(self, token: int) -> bool:
        return bool(self.libraries.llama.llama_vocab_is_eog(self.vocabulary, token))

    # -- audio --

    def prepare(self, before: str, samples: NDArray[np.float32]) -> Any:
        """Text and mel spectrogram as chunks, to be heard and freed. On the CPU, from any thread."""
        mtmd = self.libraries.mtmd
        pointer = samples.ctypes.data_as(ctypes.POINTER(ctypes.c_float))
        bitmap = mtmd.mtmd_bitmap_init_from_audio(len(samples), pointer)
        chunks = mtmd.mtmd_input_chunks_init()
        data = before.encode()
        text = mtmd.mtmd_input_text(data, len(data), False, True)
        # In parts: a marker in somebody's words stays words.
        parts = (mtmd.mtmd_input_part(ctypes.pointer(text), None), mtmd.mtmd_input_part(None, bitmap))
        pointers = (ctypes.POINTER(mtmd.mtmd_input_part) * 2)(*map(ctypes.pointer, parts))
        failed = mtmd.mtmd_tokenize_from_parts(self.ears, chunks, pointers, 2, True)
        mtmd.mtmd_bitmap_free(bitmap)
        if failed:
            mtmd.mtmd_input_chunks_free(chunks)
            raise RuntimeError(f"the audio could not be prepared ({failed})")
        return chunks

    def hear(self, chunks: Any, sequence: int) -> tuple[int, int]:
        """Encode and prefill prepared chunks; the position after them, and how many tokens were audio."""
        llama, mtmd = self.libraries.llama, self.libraries.mtmd
        position, audio_tokens = llama.llama_pos(0), 0
        for index in range(mtmd.mtmd_input_chunks_size(chunks)):
            chunk = mtmd.mtmd_input_chunks_get(chunks, index)
            failed = mtmd.mtmd_helper_eval_chunk_single(
                self.ears, self.context, chunk, position, sequence, _BATCH, False, ctypes.byref(position)
            )
            if failed:
                raise RuntimeError(f"the audio could not be decoded ({failed})")
            if mtmd.mtmd_input_chunk_get_type(chunk) == mtmd.MTMD_INPUT_CHUNK_TYPE_AUDIO:
                audio_tokens += mtmd.mtmd_input_chunk_get_n_tokens(chunk)
        return position.value, audio_tokens

    def share(self, source: int, target: int) -> None:
        self.libraries.llama.llama_memory_seq_cp(self.memory, source, target, -1, -1)

    def forget(self, sequence: int) -> None:
        self.libraries.llama.llama_memory_seq_rm(self.memory, sequence, -1, -1)

    # -- answers --

    def sampler(self, track: Track) -> Any:
        """llama.cpp's own samplers in the order in which its tools chain them."""
        llama = self.libraries.llama
        words = llama.llama_vocab_n_tokens(self.vocabulary)
        chain = llama.llama_sampler_chain_init(llama.llama_sampler_chain_default_params())
        for sampler in (
            llama.llama_sampler_init_penalties(words, _PENALTY_LAST_N, track.repeat_penalty, 0.0, 0.0),
            llama.llama_sampler_init_top_k(_TOP_K),
            llama.llama_sampler_init_top_p(track.top_p, 1),
            llama.llama_sampler_init_min_p(_MIN_P, 1),
            llama.llama_sampler_init_temp_ext(track.temperature, 0.0, 1.0),
            llama.llama_sampler_init_dist(track.seed),
        ):
            llama.llama_sampler_chain_add(chain, sampler)
        return chain

    def free(self, sampler: Any) -> None:
        self.libraries.llama.llama_sampler_free(sampler)

    def step(self, answering: Sequence[Answering]) -> None:
        """The next token of each: after its tail where that is still to be read, else after its last token."""
        waiting: list[tuple[Answering, int, int, bool]] = []
        for each in answering:
            tokens = each.tail or (each.token,)
            last = len(tokens) - 1
            waiting += [(each, token, each.position + at, at == last) for at, token in enumerate(tokens)]
            each.position += len(tokens)
            each.tail = ()
        for start in range(0, len(waiting), _BATCH):
            self._decode(waiting[start : start + _BATCH])

    def _decode(self, entries: Sequence[tuple[Answering, int, int, bool]]) -> None:
        llama, batch = self.libraries.llama, self._batch
        batch.n_tokens = len(entries)
        for index, (each, token, position, is_asked) in enumerate(entries):
            batch.token[index], batch.pos[index] = token, position
            batch.n_seq_id[index], batch.seq_id[index][0] = 1, each.sequence
            batch.logits[index] = is_asked
        if failed := llama.llama_decode(self.context, batch):
            raise RuntimeError(f"a token could not be decoded ({failed})")
        for index, (each, _, _, is_asked) in enumerate(entries):
            if is_asked:
                each.token = llama.llama_sampler_sample(each.sampler, self.context, index)


def _template(source: bytes | None) -> Any:
    """The model's own chat template, in the sandbox and with the settings of transformers."""
    from jinja2.ext import loopcontrols
    from jinja2.sandbox import ImmutableSandboxedEnvironment

    if source is None:
        raise RuntimeError("the model has no chat template")
    environment = ImmutableSandboxedEnvironment(trim_blocks=True, lstrip_blocks=True, extensions=[loopcontrols])
    environment.globals["raise_exception"] = _refuse
    environment.globals["strftime_now"] = lambda form: time.strftime(form)
    return environment.from_string(source.decode())


def _refuse(reason: str) -> None:
    raise RuntimeError(f"the chat template refuses: {reason}")
