"""Formats with files beside each track: plain text, and ACE-Step's captions and metadata.

Nothing is written into the dataset: the export is a folder of the same structure, with links to the audio.
"""

from __future__ import annotations

from pathlib import Path

from musicflamingo_cli.exports.job import Job, write_json
from musicflamingo_cli.exports.output import write_text
from musicflamingo_cli.exports.rows import Row
from musicflamingo_cli.sidecars.captions import is_text, real_captions

_LYRICS = "lyrics"  # the preset, and the sidecar key of other tools
_UNKNOWN_LANGUAGE = "unknown"
_TIME_SIGNATURES = {"2/4": "2", "3/4": "3", "4/4": "4", "6/8": "6"}  # ACE-Step's; it knows no others


def write_txt(job: Job) -> None:
    """Write `song.txt` beside each `song.flac`: the caption and nothing else."""

    def write(row: Row) -> None:
        audio = _place(row, job)
        write_text(audio.with_suffix(".txt"), row.text)

    job.for_each(write)


def write_ace_step(job: Job) -> None:
    """Write `song.caption.txt`, `song.json` and, where the lyrics are known, `song.lyrics.txt` beside each track.

    The JSON has `caption, bpm, keyscale, timesignature, language, is_instrumental`; unknown values are empty or null. A
    missing lyrics file means that the lyrics are unknown, not that the track is instrumental.
    """

    def write(row: Row) -> None:
        facts = job.facts(row)
        audio = _place(row, job)
        write_text(audio.with_suffix(".caption.txt"), row.text)
        lyrics = real_captions(row.info, [_LYRICS]).get(_LYRICS) or row.info.get(_LYRICS)
        if isinstance(lyrics, str) and lyrics.strip() and is_text(lyrics):
            write_text(audio.with_suffix(".lyrics.txt"), lyrics)
        about = {
            "caption": row.text,
            "bpm": round(facts.bpm) if facts.bpm else None,
            "keyscale": facts.key,
            "timesignature": _TIME_SIGNATURES.get(facts.music.metre, ""),
            "language": facts.music.language_code or _UNKNOWN_LANGUAGE,
            "is_instrumental": facts.music.is_instrumental,
        }
        write_json(audio.with_suffix(".json"), about)

    job.for_each(write)


def _place(row: Row, job: Job) -> Path:
    """Put the row's audio into the export and return its path there."""
    target = job.building / row.split / row.path
    job.place(row, target)
    return target
