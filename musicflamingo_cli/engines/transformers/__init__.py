"""Engine `transformers`: a checkpoint in Hugging Face transformers, in a worker process."""
