"""The prompts of a captioned dataset for stable-audio-tools (`custom_metadata_module`).

Stands alone: it needs nothing but Python. Each time a track is trained on, one of its captions is drawn. A file
without a caption (a stem, a track that is not captioned yet) is passed over.
"""

import hashlib
import json
import os
import random
import sys
import types
from pathlib import Path
from typing import Any

# Written by `musicflamingo export stable-audio`; edit them, or export again.
# settings begin
SETTINGS: dict[str, Any] = {
    "root": "",
    "suffix": ".INFO",
    "weights": {"full": 1.0},
    "presets": ["full"],
    "prefix": "",
    "postfix": "",
    "min_words": 1,
    "max_words": None,
    "only_complete": False,
    "only_approved": False,
    "validation": 0.0,
    "split": "",
    "seed": 42,
}
# settings end


def get_custom_metadata(info: dict[str, Any], audio: Any) -> dict[str, Any]:
    """Called by the trainer for each sample: `{"prompt": …}`, or `{"__reject__": True}` to pass over it."""
    relpath = info.get("relpath") or os.path.relpath(info["path"], SETTINGS["root"])
    if SETTINGS["split"] and split_of(relpath) != SETTINGS["split"]:
        return {"__reject__": True}
    captions = captions_of(sidecar_of(Path(info["path"])))
    if not captions:
        return {"__reject__": True}
    presets = list(captions)
    preset = generator().choices(presets, [SETTINGS["weights"][name] for name in presets])[0]
    words = (SETTINGS["prefix"], captions[preset], SETTINGS["postfix"])
    return {"prompt": " ".join(word for word in words if word)}


def sidecar_of(audio: Path) -> Path:
    """`Song/full_mix.flac` belongs to `Song/Song.INFO`, any other `name.flac` to `name.INFO`."""
    stem: str = Path(os.path.realpath(audio.parent)).name if audio.stem == "full_mix" else audio.stem
    return audio.parent / f"{stem}{SETTINGS['suffix']}"


def captions_of(sidecar: Path) -> dict[str, str]:
    """The captions that may be trained on, by preset."""
    try:
        info = json.loads(sidecar.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    if not isinstance(info, dict) or (SETTINGS["only_approved"] and info.get("music_flamingo_approved") is not True):
        return {}
    made = info.get("music_flamingo_provenance")
    found = {}
    for preset in SETTINGS["presets"]:
        caption = info.get("music_flamingo_" + preset)
        how = made.get(preset) if isinstance(made, dict) else None
        is_noise = isinstance(how, dict) and how.get("noise")
        if isinstance(caption, str) and caption.strip() and not is_noise:
            found[preset] = caption
    if SETTINGS["only_complete"] and len(found) < len(SETTINGS["presets"]):
        return {}
    most = SETTINGS["max_words"] or float("inf")
    fit = {preset: text for preset, text in found.items() if SETTINGS["min_words"] <= len(text.split()) <= most}
    return {preset: text for preset, text in fit.items() if SETTINGS["weights"].get(preset)}


def split_of(relpath: str) -> str:
    """The part that a track belongs to: its path alone decides, the same in every export."""
    name = relpath.replace(os.sep, "/").encode("utf-8", "surrogateescape")
    share = int.from_bytes(hashlib.sha256(name).digest()[:8], "big") / 2**64
    return "validation" if share < SETTINGS["validation"] else "train"


def generator() -> random.Random:
    """One random generator a process, seeded with the worker's number.

    It cannot be a global: the trainer pickles this function and loads it anew for every sample, globals included.
    """
    name = "musicflamingo_metadata_state"
    state: Any = sys.modules.setdefault(name, types.ModuleType(name))
    if not hasattr(state, "generator"):
        torch: Any = sys.modules.get("torch")
        worker = torch.utils.data.get_worker_info() if torch is not None else None
        state.generator = random.Random(f"{SETTINGS['seed']}-{worker.id if worker else 0}")
    drawing: random.Random = state.generator
    return drawing
