"""The names of the files through which command and worker process know of each other; torch is not imported here."""

from __future__ import annotations

PLAN = "plan.json"  # what to do
EVENTS = "events.jsonl"  # how far it is
STATE = "state.pt"  # what a killed training continues from
TRAINED = "trained"  # the folder of the trained matrices
