"""llama.cpp's libraries as engine `native` uses them: a model, its audio encoder, one context that all slots share.

Used in the worker process only (worker.py): llama.cpp ends its process where an assertion fails.
"""

from __future__ import annotations

import argparse
import codecs
import ctypes
import os
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from musicflamingo_cli.engines.conversation import messages
from musicflamingo_cli.engines.native.audio_encoder import AudioEncoder
from musicflamingo_cli.engines.native.bindings import SEQUENCES
from musicflamingo_cli.engines.native.libraries import Libraries
from musicflamingo_cli.llamacpp.binaries import FLASH_ATTENTION
from musicflamingo_cli.types import Prompt, Sampling

_utf8 = codecs.getincrementaldecoder("utf-8")
_BATCH = 2048  # tokens, llama.cpp's own default
# Defaults of llama.cpp's tools for the sampling settings that we do not offer (common.h, common_params_sampling).
_TOP_K, _MIN_P, _PENALTY_LAST_N = 40, 0.05, 64


@dataclass(slots=True)
class ActiveAnswer:
    """An answer in progress, in a sequence of its own.

    ``unread``: tokens after the audio, still to be decoded. ``is_streamed``: its pieces are sent as they are made.
    """

    prompt: Prompt
    slot: int
    request: int
    sequence: int
    sampler: Any
    position: int  # in tokens, where the next one goes
    audio_tokens: int
    prefill_seconds: float
    unread: Sequence[int] = ()
    is_streamed: bool = False
    started: float = field(default_factory=time.monotonic)
    token: int = 0  # the last one that was sampled
    text: list[str] = field(default_factory=list)
    decoder: codecs.IncrementalDecoder = field(default_factory=lambda: _utf8(errors="replace"))
    count: int = 0  # of tokens sampled


class Model:
    """A model and its projector, and one context whose cells all slots share."""

    def __init__(self, options: argparse.Namespace) -> None:
        """Load model and projector, as the worker's ``options`` say. Raises RuntimeError where that fails."""
        self.libraries = Libraries()
        llama = self.libraries.llama
        llama.llama_backend_init()
        settings = llama.llama_model_default_params()
        if options.gpu_layers is not None:
            settings.n_gpu_layers = options.gpu_layers
        self.model = llama.llama_model_load_from_file(os.fsencode(options.model), settings)
        if not self.model:
            raise RuntimeError("error loading model")  # binaries.diagnose knows this message
        self.vocabulary = llama.llama_model_get_vocab(self.model)
        self.context = self._new_context(options)
        if options.lora:
            self._add_adapter(options.lora)
        self.memory = llama.llama_get_memory(self.context)
        self.audio_encoder = AudioEncoder(self.libraries, self.model, options)
        self.template = _template(llama.llama_model_chat_template(self.model, None))
        self._batch = llama.llama_batch_init(_BATCH, 0, 1)

    def _new_context(self, options: argparse.Namespace) -> Any:
        llama = self.libraries.llama
        settings = llama.llama_context_default_params()
        settings.n_ctx = options.context * options.slots
        settings.n_seq_max = SEQUENCES * options.slots
        settings.kv_unified = True  # else each sequence has a part of its own, and copying one duplicates its memory
        settings.n_threads = settings.n_threads_batch = options.threads
        if options.flash_attention:
            settings.flash_attn_type = FLASH_ATTENTION[options.flash_attention]
        context = llama.llama_init_from_model(self.model, settings)
        if not context:
            raise RuntimeError("the context could not be created")
        return context

    def _add_adapter(self, file: str) -> None:
        """Let an adapter change all answers; it is freed with the model. Raises RuntimeError where it does not fit."""
        llama = self.libraries.llama
        adapter = llama.llama_adapter_lora_init(self.model, os.fsencode(file))
        if not adapter:
            raise RuntimeError("failed to apply lora adapter")
        adapters, scales = (llama.llama_adapter_lora_p_ctypes * 1)(adapter), (ctypes.c_float * 1)(1.0)
        if llama.llama_set_adapters_lora(self.context, adapters, 1, scales):
            raise RuntimeError("failed to apply lora adapter")

    # -- text --

    def split(self, prompt: Prompt) -> tuple[str, str]:
        """Return a prompt in the model's own template: the text before the audio, and the text after it."""
        marker = "\0audio\0"
        said = [
            {"role": each["role"], "content": "".join(part["text"] for part in each["content"])}
            for each in messages(prompt, [{"text": marker}])
        ]
        before, after = self.template.render(messages=said, add_generation_prompt=True).split(marker)
        return before, after

    def tokens(self, text: str) -> list[int]:
        """Return the tokens of a text, special tokens included."""
        llama, data = self.libraries.llama, text.encode()
        buffer = (llama.llama_token * (len(data) + 8))()
        count = llama.llama_tokenize(self.vocabulary, data, len(data), buffer, len(buffer), False, True)
        return list(buffer[:count])

    def piece(self, token: int, size: int = 256) -> bytes:
        """Return the bytes of a token; ``size`` is how many are expected at most."""
        buffer = ctypes.create_string_buffer(size)
        length = self.libraries.llama.llama_token_to_piece(self.vocabulary, token, buffer, size, 0, True)
        return buffer.raw[:length] if length >= 0 else self.piece(token, -length)  # negative: the size that it needs

    def is_end(self, token: int) -> bool:
        """Return whether a token ends an answer."""
        return bool(self.libraries.llama.llama_vocab_is_eog(self.vocabulary, token))

    # -- memory --

    def copy_sequence(self, source: int, target: int) -> None:
        """Let a sequence share another one's memory."""
        self.libraries.llama.llama_memory_seq_cp(self.memory, source, target, -1, -1)

    def clear_sequence(self, sequence: int) -> None:
        """Remove a sequence from memory."""
        self.libraries.llama.llama_memory_seq_rm(self.memory, sequence, -1, -1)

    # -- answers --

    def sampler(self, sampling: Sampling, schema: str = "") -> Any:
        """Return a chain of llama.cpp's own samplers, in the order of its tools; ``schema``: see Prompt.

        Raises RuntimeError where the schema makes no grammar.
        """
        llama = self.libraries.llama
        grammar = [self._grammar(schema)] if schema else []
        vocabulary_size = llama.llama_vocab_n_tokens(self.vocabulary)
        chain = llama.llama_sampler_chain_init(llama.llama_sampler_chain_default_params())
        for sampler in (
            *grammar,
            llama.llama_sampler_init_penalties(vocabulary_size, _PENALTY_LAST_N, sampling.repeat_penalty, 0.0, 0.0),
            llama.llama_sampler_init_top_k(_TOP_K),
            llama.llama_sampler_init_top_p(sampling.top_p, 1),
            llama.llama_sampler_init_min_p(_MIN_P, 1),
            llama.llama_sampler_init_temp_ext(sampling.temperature, 0.0, 1.0),
            llama.llama_sampler_init_dist(sampling.seed),
        ):
            llama.llama_sampler_chain_add(chain, sampler)
        return chain

    def _grammar(self, schema: str) -> Any:
        """Return the sampler that leaves only tokens with which an answer can still follow the schema."""
        from llama_cpp.llama_grammar import json_schema_to_gbnf

        text = json_schema_to_gbnf(schema)
        grammar = self.libraries.llama.llama_sampler_init_grammar(self.vocabulary, text.encode(), b"root")
        if not grammar:
            raise RuntimeError("llama.cpp does not take the schema's grammar")
        return grammar

    def free_sampler(self, sampler: Any) -> None:
        """Free a chain of samplers."""
        self.libraries.llama.llama_sampler_free(sampler)

    def step(self, answers: Sequence[ActiveAnswer]) -> None:
        """Sample the next token of each answer, after decoding its unread tokens or else its last token."""
        entries: list[tuple[ActiveAnswer, int, int, bool]] = []
        for each in answers:
            tokens = each.unread or (each.token,)
            last = len(tokens) - 1
            entries += [(each, token, each.position + at, at == last) for at, token in enumerate(tokens)]
            each.position += len(tokens)
            each.unread = ()
        for start in range(0, len(entries), _BATCH):
            self._decode(entries[start : start + _BATCH])

    def _decode(self, entries: Sequence[tuple[ActiveAnswer, int, int, bool]]) -> None:
        """Decode (answer, token, position, whether to sample after it) in one batch. Raises RuntimeError."""
        llama, batch = self.libraries.llama, self._batch
        batch.n_tokens = len(entries)
        for index, (each, token, position, is_last) in enumerate(entries):
            batch.token[index], batch.pos[index] = token, position
            batch.n_seq_id[index], batch.seq_id[index][0] = 1, each.sequence
            batch.logits[index] = is_last
        if failed := llama.llama_decode(self.context, batch):
            raise RuntimeError(f"a token could not be decoded ({failed})")
        for index, (each, _, _, is_last) in enumerate(entries):
            if is_last:
                each.token = llama.llama_sampler_sample(each.sampler, self.context, index)


def _template(source: bytes | None) -> Any:
    """Return the model's own chat template, in a sandbox and with the settings of transformers."""
    from jinja2.ext import loopcontrols
    from jinja2.sandbox import ImmutableSandboxedEnvironment

    if source is None:
        raise RuntimeError("the model has no chat template")
    environment = ImmutableSandboxedEnvironment(trim_blocks=True, lstrip_blocks=True, extensions=[loopcontrols])
    environment.globals["raise_exception"] = _raise_template_error
    environment.globals["strftime_now"] = lambda form: time.strftime(form)
    return environment.from_string(source.decode())


def _raise_template_error(reason: str) -> None:
    raise RuntimeError(f"the chat template rejects the prompt: {reason}")
