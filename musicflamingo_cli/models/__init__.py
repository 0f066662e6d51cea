"""Models, GGUF pairs and checkpoints: which one to use, what can be downloaded, and how."""
