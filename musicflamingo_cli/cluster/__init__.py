"""Batches on a Ray cluster: actors caption, the driver finds the tracks and keeps the record."""
