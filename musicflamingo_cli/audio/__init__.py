"""Audio files: decoding, the clip that a model hears, tags and thumbnails."""
