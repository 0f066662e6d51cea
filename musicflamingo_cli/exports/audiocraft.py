"""audiocraft (MusicGen): a manifest, a JSON beside each track, and the other captions as paraphrases.

Read by audiocraft/data/music_dataset.py: every field must be there, null and "" are allowed; the JSON is looked for
beside the audio, so `audio/` holds links to it.
"""

from __future__ import annotations

import contextlib
from pathlib import Path, PurePosixPath
from typing import IO, Any

from musicflamingo_cli.exports.job import Job, json_text, write_json
from musicflamingo_cli.exports.output import open_text, place_audio
from musicflamingo_cli.exports.rows import Facts, Row

AUDIO, MANIFEST, PARAPHRASES = "audio", "data.jsonl", "paraphrases.json"


def write_audiocraft(job: Job) -> None:
    """`audio/…` with JSONs; `data.jsonl` and `paraphrases.json`, in `train/` and `validation/` where there are both."""
    with contextlib.ExitStack() as stack:
        parts: dict[str, tuple[IO[str], _Object]] = {}

        def files_of(split: str) -> tuple[IO[str], _Object]:
            if split not in parts:
                folder = job.building / split
                folder.mkdir(exist_ok=True)
                manifest = stack.enter_context(open_text(folder / MANIFEST))
                parts[split] = manifest, stack.enter_context(_Object(folder / PARAPHRASES))
            return parts[split]

        def write(row: Row) -> None:
            facts = row.facts()
            target = job.building / AUDIO / row.path
            place_audio(row.track.audio, target, job.target.audio)
            write_json(target.with_suffix(".json"), info_of(row, facts))
            # As it will be, and absolute: audiocraft takes a relative path for one below its working folder.
            path = (job.target.out.absolute() / AUDIO / row.path).as_posix()
            manifest, paraphrases = files_of(row.split)
            manifest.write(json_text(_meta(path, facts)) + "\n")
            beside = PurePosixPath(path).with_suffix(".json").as_posix()
            paraphrases.add(beside, list(dict.fromkeys(row.captions.values())))

        job.for_each(write)


def info_of(row: Row, facts: Facts) -> dict[str, Any]:
    """audiocraft's MusicInfo fields of a track. A key with a comma would be dropped by the reader, and says nothing."""
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


def _meta(path: str, facts: Facts) -> dict[str, Any]:
    return {
        "path": path,
        "duration": facts.seconds,
        "sample_rate": facts.rate,
        "amplitude": None,
        "weight": None,
        "info_path": None,
    }


class _Object(contextlib.AbstractContextManager["_Object"]):
    """A JSON object written member by member, since a library's would not fit into memory."""

    def __init__(self, path: Path) -> None:
        self._file = open_text(path)
        self._separator = "{\n"

    def add(self, key: str, value: Any) -> None:
        self._file.write(f"{self._separator}{json_text(key)}: {json_text(value)}")
        self._separator = ",\n"

    def __exit__(self, *_: object) -> None:
        self._file.write("\n}\n" if self._separator.startswith(",") else "{}\n")
        self._file.close()
