"""Review in the browser: listen, read, correct and approve captions on a local page for one person.

``security`` decides who may ask, ``app`` answers, ``library`` is the dataset in memory, ``edits`` and ``history`` are
what a person changes, ``audio`` and ``pictures`` are the sound, ``asks`` is the model, ``page/`` is the page itself.
"""
