"""Music made from captions by MusicGen, and what comes back of a caption when that music is captioned again."""
