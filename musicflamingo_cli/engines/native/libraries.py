"""llama.cpp's shared libraries through the low-level bindings of llama-cpp-python."""

from __future__ import annotations

import logging

from musicflamingo_cli.engines.native.bindings import BINDINGS


class Libraries:
    """llama.cpp through its low-level bindings."""

    def __init__(self) -> None:
        """Load them. Raises ImportError or OSError where they do not load or differ from what the bindings declare."""
        import llama_cpp
        from llama_cpp import llama_cpp as llama
        from llama_cpp import mtmd_cpp as mtmd

        # The bindings also print llama.cpp's debug messages, some of which read like errors.
        logging.getLogger("llama-cpp-python").setLevel(logging.INFO)
        if llama_cpp.__version__ != BINDINGS:
            raise ImportError(f"llama-cpp-python {llama_cpp.__version__} is installed, {BINDINGS} is needed")
        self.llama, self.mtmd = llama, mtmd
        context, audio = llama.llama_context_default_params(), mtmd.mtmd_context_params_default()
        # Fields from all over the structures: where one has moved, these values differ from upstream's defaults.
        defaults = [context.n_ctx, context.n_batch, context.n_ubatch, context.rope_scaling_type]
        defaults += [context.yarn_ext_factor, context.type_k, context.no_perf, context.n_samplers]
        defaults += [audio.n_threads, audio.flash_attn_type, audio.warmup, audio.image_min_tokens]
        defaults += [audio.batch_max_tokens]
        if defaults != [512, 2048, 512, -1, -1.0, 1, True, 0, 4, -1, True, -1, 1024]:
            raise ImportError(f"llama.cpp's libraries differ from what the bindings declare ({defaults})")
