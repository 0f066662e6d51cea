"""audiocraft (MusicGen): a manifest, a JSON file beside each track, and the other captions as paraphrases.

Read by audiocraft/data/music_dataset.py: every field must be present, null and "" are allowed. The reader looks for
the JSON file beside the audio, so `audio/` holds links to the audio.
"""

from __future__ import annotations

import contextlib
from pathlib import Path, PurePosixPath
from typing import IO, Any

from musicflamingo_cli.exports.job import Job, json_text, write_json
from musicflamingo_cli.exports.output import open_text
from musicflamingo_cli.exports.rows import Row, TrackFacts

AUDIO, MANIFEST, PARAPHRASES = "audio", "data.jsonl", "paraphrases.json"


def write_audiocraft(job: Job) -> None:
    """Write `audio/…` with JSON files, `data.jsonl` and `paraphrases.json`.

    With a validation split the last two are written to `train/` and `validation/`.
    """
    with contextlib.ExitStack() as stack:
        parts: dict[str, tuple[IO[str], _ObjectWriter]] = {}

        def files_of(split: str) -> tuple[IO[str], _ObjectWriter]:
            if split not in parts:
                folder = job.building / split
                folder.mkdir(exist_ok=True)
                manifest = stack.enter_context(open_text(folder / MANIFEST))
                parts[split] = manifest, stack.enter_context(_ObjectWriter(folder / PARAPHRASES))
            return parts[split]

        def write(row: Row) -> None:
            facts = job.facts(row)
            target = job.building / AUDIO / row.path
            job.place(row, target)
            write_json(target.with_suffix(".json"), info_of(row, facts))
            # The final path, and absolute: audiocraft resolves a relative path against its working folder.
            path = (job.target.out.absolute() / AUDIO / row.path).as_posix()
            manifest, paraphrases = files_of(row.split)
            manifest.write(json_text(_meta(path, facts)) + "\n")
            beside = PurePosixPath(path).with_suffix(".json").as_posix()
            paraphrases.add(beside, list(dict.fromkeys(row.captions.values())))

        job.for_each(write)


def info_of(row: Row, facts: TrackFacts) -> dict[str, Any]:
    """Return audiocraft's MusicInfo fields of a track.

    A key with a comma is written as empty, since the reader drops it anyway.
    """
    return {
        "title": facts.known.get("title", ""),
        "artist": facts.known.get("artist", ""),
        "key": facts.key if "," not in facts.key else "",
        "bpm": facts.bpm,
        "genre": facts.known.get("genre", "") or ", ".join(facts.genres),
        "moods": list(facts.moods),
        "keywords": list(facts.genres),
        "description": row.text,
        "name": row.path.stem,
        "instrument": ", ".join(facts.instruments),
    }


def _meta(path: str, facts: TrackFacts) -> dict[str, Any]:
    """Return audiocraft's AudioMeta fields of a track: a line of the manifest."""
    return {
        "path": path,
        "duration": facts.seconds,
        "sample_rate": facts.rate,
        "amplitude": None,
        "weight": None,
        "info_path": None,
    }


class _ObjectWriter(contextlib.AbstractContextManager["_ObjectWriter"]):
    """Writes a JSON object member by member, since a large library's would not fit into memory."""

    def __init__(self, path: Path) -> None:
        self._file = open_text(path)
        self._separator = "{\n"

    def add(self, key: str, value: Any) -> None:
        """Write one member."""
        self._file.write(f"{self._separator}{json_text(key)}: {json_text(value)}")
        self._separator = ",\n"

    def __exit__(self, *_: object) -> None:
        self._file.write("\n}\n" if self._separator.startswith(",") else "{}\n")
        self._file.close()
