"""Captions for music libraries: NVIDIA's Music Flamingo under llama.cpp, written into `.INFO` sidecars."""

__version__ = "0.1.0"
