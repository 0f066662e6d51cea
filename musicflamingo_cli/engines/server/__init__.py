"""Engines `server` and `embedded`: one resident llama-server."""
