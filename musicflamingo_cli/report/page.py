"""The page: one HTML file with its style, its program and its data inside; only the audio lies outside."""

from __future__ import annotations

import base64
import html
import json
import os
import re
import urllib.parse
from importlib import resources
from pathlib import Path
from typing import Any

from musicflamingo_cli._version import __version__
from musicflamingo_cli.audio.thumbnail import COLUMNS, ROWS
from musicflamingo_cli.exports.output import new_file
from musicflamingo_cli.report.contents import Entry, Report
from musicflamingo_cli.text.t5_tokens import LIMITS

MARKER = "<!-- a report of musicflamingo -->"  # so that a later report replaces it, and nothing else
_SHARED_SHOWN = 20
_PLACE = re.compile(r"\{\{(\w+)\}\}")


def write_page(report: Report, out: Path) -> None:
    """Write the page, whole or not at all. Raises ConfigError where ``out`` is something else than a report."""
    with new_file(out, overwrite=True, is_ours=is_report) as building:
        building.write_text(render(report, out.parent), encoding="utf-8", newline="")


def is_report(file: Path) -> bool:
    """Whether a file is a page of ours, which a later one replaces."""
    with file.open("rb") as page:
        return MARKER.encode() in page.read(200)


def render(report: Report, folder: Path) -> str:
    """The page as HTML; ``folder`` is where it will lie, from which the audio is found."""
    name = report.root.resolve().name or "dataset"
    # In a script element only "<" could end it or begin something else (HTML standard, 4.12.1.3).
    data = json.dumps(_data(report, folder), ensure_ascii=False).replace("<", "\\u003c")
    parts = {
        "marker": MARKER,
        "title": html.escape(name),
        "version": __version__,
        "style": _file("page.css"),
        "program": _file("page.js"),
        "data": data,
    }
    page = _PLACE.sub(lambda place: parts[place[1]], _file("page.html"))  # in one pass: parts may hold such words
    return page.encode("utf-8", "replace").decode()


def _file(name: str) -> str:
    return resources.files(__package__ or __name__).joinpath(name).read_text(encoding="utf-8")


def _data(report: Report, folder: Path) -> dict[str, Any]:
    return {
        "dataset": str(report.root),
        "presets": list(report.presets),
        "hours": report.hours,
        "complete": report.complete,
        "skipped": report.skipped,
        "coverage": report.coverage(),
        "failures": dict(report.failures.most_common()),
        "shared": report.shared[:_SHARED_SHOWN],
        "sharedCount": len(report.shared),
        "limits": dict(LIMITS),
        "tokensAreEstimated": not report.counter.is_exact,
        "picture": [COLUMNS, ROWS],
        "tracks": [_track(entry, report.root, folder) for entry in report.entries],
    }


def _track(entry: Entry, root: Path, folder: Path) -> dict[str, Any]:
    words = entry.words
    return {
        "name": entry.track.audio.relative_to(root).as_posix(),
        "audio": _url(entry.track.audio, folder),
        "seconds": round(entry.seconds, 2),
        "captions": entry.captions,
        "tokens": entry.tokens,
        "tempo": words.tempo,
        "key": words.key,
        "genres": words.genres,
        "instruments": words.instruments,
        "moods": words.moods,
        "problem": entry.problem,
        "flags": entry.flags,
        "picture": base64.b64encode(entry.thumbnail).decode() if entry.thumbnail else "",
    }


def _url(audio: Path, folder: Path) -> str:
    """Where a page in ``folder`` finds the audio: relative, so that both can be moved or served together."""
    try:
        path = Path(os.path.relpath(audio.absolute(), folder.absolute())).as_posix()
    except ValueError:  # another drive
        return audio.absolute().as_uri()
    return urllib.parse.quote(path.encode("utf-8", "surrogateescape"), safe="/")
