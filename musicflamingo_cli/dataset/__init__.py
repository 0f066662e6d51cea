"""Which files are tracks, and which of them a run selects."""
