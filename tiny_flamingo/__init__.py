"""How the tiny Music Flamingo is made: labelled music, captions, training, evaluation, conversion to GGUF.

Not imported by the product; needs the extra ``[train]``. See README.md beside this file.
"""
