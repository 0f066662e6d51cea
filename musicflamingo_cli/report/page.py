"""Write the report's page: one HTML file that contains style, script and data; only the audio is separate."""

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

MARKER = "<!-- a report of musicflamingo -->"  # identifies reports: only these are replaced by a later one
_SHARED_SHOWN = 20
_PLACEHOLDER = re.compile(r"\{\{(\w+)\}\}")


def write_page(report: Report, out: Path) -> None:
    """Write the page completely, or not at all. Raises ConfigError where ``out`` exists and is not a report."""
    with new_file(out, overwrite=True, is_ours=is_report) as building:
        building.write_text(render(report, out.parent), encoding="utf-8", newline="")


def is_report(file: Path) -> bool:
    """Return whether a file is a report, which a later one may replace."""
    with file.open("rb") as page:
        return MARKER.encode() in page.read(200)


def render(report: Report, folder: Path) -> str:
    """Return the page as HTML. ``folder`` is where it will be, since audio is referenced relative to it."""
    name = report.root.resolve().name or "dataset"
    # Inside a script element only "<" can start markup (HTML standard, 4.12.1.3).
    data = json.dumps(_data(report, folder), ensure_ascii=False).replace("<", "\\u003c")
    parts = {
        "marker": MARKER,
        "title": html.escape(name),
        "version": __version__,
        "style": _file("page.css"),
        "script": _file("page.js"),
        "data": data,
    }
    page = _PLACEHOLDER.sub(
        lambda match: parts[match[1]], _file("page.html")
    )  # in one pass, since parts may contain such placeholders
    return page.encode("utf-8", "replace").decode()


def _file(name: str) -> str:
    """Return the text of a file beside this module."""
    return resources.files(__package__ or __name__).joinpath(name).read_text(encoding="utf-8")


def _data(report: Report, folder: Path) -> dict[str, Any]:
    """Return the data that page.js shows."""
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
    """Return one track of the data."""
    facts = entry.facts
    return {
        "name": entry.track.audio.relative_to(root).as_posix(),
        "audio": _url(entry.track.audio, folder),
        "seconds": round(entry.seconds, 2),
        "captions": entry.captions,
        "tokens": entry.tokens,
        "tempo": facts.tempo,
        "key": facts.key,
        "genres": facts.genres,
        "instruments": facts.instruments,
        "moods": facts.moods,
        "problem": entry.problem,
        "flags": entry.flags,
        "picture": base64.b64encode(entry.thumbnail).decode() if entry.thumbnail else "",
    }


def _url(audio: Path, folder: Path) -> str:
    """Return the URL of the audio for a page in ``folder``: relative, so that both can be moved or served together."""
    try:
        path = Path(os.path.relpath(audio.absolute(), folder.absolute())).as_posix()
    except ValueError:  # it is on another drive (Windows)
        return audio.absolute().as_uri()
    return urllib.parse.quote(path.encode("utf-8", "surrogateescape"), safe="/")
