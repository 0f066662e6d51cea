"""Audio files: decoding, the clip that the model gets, tags and thumbnails."""
