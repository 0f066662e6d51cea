"""The prompts of a captioned dataset for stable-audio-tools (`custom_metadata_module`).

Standalone: it needs only Python's standard library. Each time a track is trained on, one caption is drawn from its
sidecar in the exported dataset. A track that no longer has a caption is skipped.
"""

import json
import os
import random
import sys
import types
from pathlib import Path
from typing import Any

# Written by `musicflamingo export stable-audio`; edit these settings, or export again.
# settings begin
SETTINGS: dict[str, Any] = {
    "root": "",  # the dataset
    "revised": "",  # a file with captions that were changed for this export
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
    """Return `{"prompt": …}` for a sample, or `{"__reject__": True}` to skip it. The trainer calls this."""
    captions = captions_of(sidecar_of(Path(SETTINGS["root"]) / info["relpath"]))
    for preset, (before, after) in revised_captions().get(info["relpath"], {}).items():
        if captions.get(preset) == before:  # else it is another caption since
            captions[preset] = after
    captions = {preset: caption for preset, caption in captions.items() if has_right_length(caption)}
    if not captions:
        return {"__reject__": True}
    presets = list(captions)
    preset = generator().choices(presets, [SETTINGS["weights"][name] for name in presets])[0]
    parts = (SETTINGS["prefix"], captions[preset], SETTINGS["postfix"])
    return {"prompt": " ".join(part for part in parts if part)}


def sidecar_of(audio: Path) -> Path:
    """Return the sidecar of an audio file: `Song/Song.INFO` for `Song/full_mix.flac`, else `name.INFO`."""
    stem: str = Path(os.path.realpath(audio.parent)).name if audio.stem == "full_mix" else audio.stem
    return audio.parent / f"{stem}{SETTINGS['suffix']}"


def captions_of(sidecar: Path) -> dict[str, str]:
    """Return the captions that may be trained on, by preset; the tiny model's are left out."""
    try:
        info = json.loads(sidecar.read_text(encoding="utf-8-sig"))
    except (OSError, ValueError):
        return {}
    if not isinstance(info, dict) or (SETTINGS["only_approved"] and info.get("music_flamingo_approved") is not True):
        return {}
    if info.get("music_flamingo_excluded") is True:
        return {}
    provenance = info.get("music_flamingo_provenance")
    found: dict[str, str] = {}
    for preset in SETTINGS["weights"]:
        caption = info.get("music_flamingo_" + preset)
        made = provenance.get(preset) if isinstance(provenance, dict) else None
        if isinstance(caption, str) and not (isinstance(made, dict) and is_of_tiny_model(made)):
            found[preset] = caption.encode("utf-8", "replace").decode()
    return found


def is_of_tiny_model(made: dict[str, Any]) -> bool:
    """Return whether a caption is of the tiny model, as it wrote it; ``made``: how it was made."""
    return bool(made.get("toy") or made.get("noise")) and made.get("edited") is not True


def has_right_length(caption: str) -> bool:
    """Return whether a caption has as many words as it should."""
    words = len(caption.split())
    return bool(max(1, SETTINGS["min_words"]) <= words <= (SETTINGS["max_words"] or words))


def revised_captions() -> dict[str, Any]:
    """Return the captions that were changed for this export, read once: path to preset to before and after."""
    path = SETTINGS["revised"]
    files: dict[str, dict[str, Any]] = vars(process_state()).setdefault("revised", {})
    if path not in files:
        files[path] = json.loads(Path(path).read_text(encoding="utf-8")) if path and Path(path).exists() else {}
    return files[path]


def process_state() -> Any:
    """Return what this process remembers.

    It is not a global of this module: the trainer pickles `get_custom_metadata` with its globals for every sample.
    """
    name = "musicflamingo_metadata_state"
    return sys.modules.setdefault(name, types.ModuleType(name))


def generator() -> random.Random:
    """Return the process's random generator, seeded with the data loader worker's number."""
    state = process_state()
    if not hasattr(state, "generator"):
        torch: Any = sys.modules.get("torch")
        worker = torch.utils.data.get_worker_info() if torch is not None else None
        state.generator = random.Random(f"{SETTINGS['seed']}-{worker.id if worker else 0}")
    result: random.Random = state.generator
    return result
