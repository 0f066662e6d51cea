"""The `.INFO` sidecar: reading, merging, claiming, and what makes a caption outdated."""
