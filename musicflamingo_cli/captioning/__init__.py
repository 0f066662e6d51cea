"""Captioning: one track, many tracks, retries, the log of a run, and where a dataset stands."""
