"""stable-audio-tools, `audio_dir`: folders of links, and a metadata module that reads the sidecars in training."""

from __future__ import annotations

import json
from pathlib import Path

from musicflamingo_cli.exports import stable_audio_module
from musicflamingo_cli.exports.job import Job, write_json
from musicflamingo_cli.exports.output import write_text
from musicflamingo_cli.exports.rows import Row
from musicflamingo_cli.sidecars.captions import caption_key
from musicflamingo_cli.sidecars.leftovers import SIDECAR_SUFFIX

CONFIG, MODULE, AUDIO, REVISED = "dataset.json", "metadata.py", "audio", "revised.json"
READS = (".wav", ".mp3", ".flac", ".ogg", ".aif", ".opus", ".aiff")  # of its function get_audio_filenames
_SETTINGS_BEGIN, _SETTINGS_END = "# settings begin\n", "# settings end\n"  # lines of the module


def write_stable_audio(job: Job) -> None:
    """Write `dataset.json`, `metadata.py` and `audio/`; or `train.json`, `validation.json` and a folder for each.

    The trainer reads all audio below a folder, including stems and uncaptioned tracks, and decodes a file before the
    module can reject it: so it gets a folder of links to the exported tracks only. The captions stay in the sidecars:
    a track whose captions change is trained with the new ones.
    """
    splits: dict[str, None] = {}
    revised: dict[str, dict[str, list[str]]] = {}  # path to preset to the caption as it is, and as it is used

    def write(row: Row) -> None:
        if row.path.suffix.lower() not in READS:
            job.stats.remark(f"are {row.path.suffix.lower()}, which stable-audio-tools skips")
        job.place(row, job.building / (row.split or AUDIO) / row.path)
        splits[row.split] = None
        if row.changes:
            as_it_is = {preset: row.info.get(caption_key(preset), "") for preset in row.changes}
            revised[row.path.as_posix()] = {
                preset: [text, row.raw_captions.get(preset, "")] for preset, text in as_it_is.items()
            }

    job.for_each(write)
    if revised:
        write_json(job.building / REVISED, revised)
    write_text(job.building / MODULE, module_text(job))
    out = job.target.out.absolute()
    for split in splits:
        dataset = {"path": str(out / (split or AUDIO)), "custom_metadata_module": str(out / MODULE)}
        write_config(job, split, "audio_dir", dataset)


def write_config(job: Job, split: str, kind: str, dataset: dict[str, str]) -> None:
    """Write the dataset config for stable-audio-tools' `train.py`: `dataset.json`, or one named after the split.

    ``kind`` is its `dataset_type`; ``dataset`` holds the entries for that type.
    """
    identity = f"{job.root.resolve().name}-{split}".rstrip("-")
    config = {"dataset_type": kind, "datasets": [{"id": identity, **dataset}], "random_crop": True}
    write_json(job.building / (f"{split}.json" if split else CONFIG), config)


def module_text(job: Job) -> str:
    """Return the source of the metadata module, with this export's options in place of its defaults."""
    options = job.options
    settings = {
        "root": str(job.root.absolute()),
        "revised": str(job.target.out.absolute() / REVISED) if options.revises else "",
        "suffix": SIDECAR_SUFFIX,
        "weights": dict(options.weights),
        "prefix": options.prefix,
        "postfix": options.postfix,
        "min_words": options.min_words,
        "max_words": options.max_words,
        "only_approved": options.only_approved,
        "seed": options.seed,
    }
    source = Path(stable_audio_module.__file__).read_text(encoding="utf-8")
    before, _, rest = source.partition(_SETTINGS_BEGIN)
    after = rest.partition(_SETTINGS_END)[2]
    return f"{before}SETTINGS: dict[str, Any] = json.loads({json.dumps(json.dumps(settings))})\n{after}"
