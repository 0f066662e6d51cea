"""The prompts of a captioned dataset for stable-audio-tools (`custom_metadata_module`).

Stands alone: it needs nothing but Python. Each time a track is trained on, one of its captions is drawn from its
sidecar, which lies in the dataset that was exported. A track that has none any more is passed over.
"""

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
    "root": "",  # the dataset
    "suffix": ".INFO",
    "weights": {"full": 1.0},
    "prefix": "",
    "postfix": "",
    "min_words": 1,
    "max_words": None,
    "only_approved": False,
    "seed": 42,
}
# settings end


def get_custom_metadata(info: dict[str, Any], audio: Any) -> dict[str, Any]:
    """Called by the trainer for each sample: `{"prompt": …}`, or `{"__reject__": True}` to pass over it."""
    captions = captions_of(sidecar_of(Path(SETTINGS["root"]) / info["relpath"]))
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
        info = json.loads(sidecar.read_text(encoding="utf-8-sig"))
    except (OSError, ValueError):
        return {}
    if not isinstance(info, dict) or (SETTINGS["only_approved"] and info.get("music_flamingo_approved") is not True):
        return {}
    made = info.get("music_flamingo_provenance")
    most = SETTINGS["max_words"] or float("inf")
    found: dict[str, str] = {}
    for preset in SETTINGS["weights"]:
        caption = info.get("music_flamingo_" + preset)
        how = made.get(preset) if isinstance(made, dict) else None
        if not isinstance(caption, str) or (isinstance(how, dict) and (how.get("toy") or how.get("noise"))):
            continue
        if caption.strip() and SETTINGS["min_words"] <= len(caption.split()) <= most:
            found[preset] = caption.encode("utf-8", "replace").decode()
    return found


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
