"""The demo's folder, and the songs that come with the tiny model."""
