"""Which bindings and which libraries engine `native` is made for."""

from __future__ import annotations

BINDINGS = "0.3.36"  # of llama-cpp-python, whose C declarations are those of
RELEASE = "b11434"  # of llama.cpp: include/llama.h and tools/mtmd/mtmd.h do not differ where we use them
SEQUENCES = 16  # in each slot: the first for the audio, the others for answers that are decoded together
