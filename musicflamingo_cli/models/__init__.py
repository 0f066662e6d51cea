"""GGUF models: which pair to use, what can be downloaded, and how."""
