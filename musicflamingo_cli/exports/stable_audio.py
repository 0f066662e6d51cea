"""stable-audio-tools, `audio_dir`: a dataset config, and a metadata module that reads the sidecars in training."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from musicflamingo_cli.exports import stable_audio_module
from musicflamingo_cli.exports.job import Job, json_text
from musicflamingo_cli.exports.rows import Row
from musicflamingo_cli.sidecar import SUFFIX

CONFIG = "dataset.json"
_SETTINGS_BEGIN, _SETTINGS_END = "# settings begin\n", "# settings end\n"  # lines of the module


def write_stable_audio(job: Job) -> None:
    """`dataset.json` and `metadata.py`, or `train.json`, `train_metadata.py` and the same for validation.

    The captions stay in the sidecars: a track whose captions change is trained with the new ones.
    """

    def count(row: Row) -> None:
        """The rows are only counted: what they hold is read again by the module."""

    job.for_each(count)
    for split in job.splits:
        module = job.building / (f"{split}_metadata.py" if split else "metadata.py")
        module.write_text(module_text(job, split), encoding="utf-8", newline="")
        config = json_text(_config(job, split, module.name), indent=2) + "\n"
        (job.building / (f"{split}.json" if split else CONFIG)).write_text(config, encoding="utf-8", newline="")


def module_text(job: Job, split: str) -> str:
    """The source of the metadata module, with this export's choice in place of its defaults."""
    choice = job.choice
    settings = {
        "root": str(job.root.absolute()),
        "suffix": SUFFIX,
        "weights": dict(choice.weights),
        "presets": choice.presets,
        "prefix": choice.prefix,
        "postfix": choice.postfix,
        "min_words": choice.min_words,
        "max_words": choice.max_words,
        "only_complete": choice.only_complete,
        "only_approved": choice.only_approved,
        "validation": choice.validation,
        "split": split,
        "seed": choice.seed,
    }
    source = Path(stable_audio_module.__file__).read_text(encoding="utf-8")
    before, _, rest = source.partition(_SETTINGS_BEGIN)
    after = rest.partition(_SETTINGS_END)[2]
    return f"{before}SETTINGS: dict[str, Any] = json.loads({json.dumps(json.dumps(settings))})\n{after}"


def _config(job: Job, split: str, module: str) -> dict[str, Any]:
    dataset = {
        "id": f"{job.root.resolve().name}-{split}".rstrip("-"),
        "path": str(job.root.absolute()),
        "custom_metadata_module": str(job.target.out.absolute() / module),
    }
    return {"dataset_type": "audio_dir", "datasets": [dataset], "random_crop": True}
