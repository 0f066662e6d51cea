"""Datasets in object stores: listing, downloads, claims and sidecars without a file system (extra `stores`)."""
