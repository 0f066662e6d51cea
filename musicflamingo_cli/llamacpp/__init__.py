"""The llama.cpp binaries and the memory that they can use."""
