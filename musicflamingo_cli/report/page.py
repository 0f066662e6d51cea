"""Write the report's page: one HTML file that contains style, script and data; only the audio is separate."""

from __future__ import annotations

import base64
import html
import json
from pathlib import Path
from typing import Any

from musicflamingo_cli._version import __version__
from musicflamingo_cli.audio.thumbnail import COLUMNS, ROWS
from musicflamingo_cli.report import template
from musicflamingo_cli.report.contents import Entry, Report
from musicflamingo_cli.text.t5_tokens import LIMITS

MARKER = "<!-- a report of musicflamingo -->"  # identifies reports: only these are replaced by a later one
_SHARED_SHOWN = 20


def write_page(report: Report, out: Path) -> None:
    """Write the page completely, or not at all. Raises ConfigError where ``out`` exists and is not a report."""
    template.write(render(report, out.parent), out, MARKER)


def render(report: Report, folder: Path) -> str:
    """Return the page as HTML. ``folder`` is where it will be, since audio is referenced relative to it."""
    name = report.root.resolve().name or "dataset"
    # Inside a script element only "<" can start markup (HTML standard, 4.12.1.3).
    data = json.dumps(_data(report, folder), ensure_ascii=False).replace("<", "\\u003c")
    parts = {
        "marker": MARKER,
        "title": html.escape(name),
        "version": __version__,
        "style": template.text_of("page.css"),
        "script": template.text_of("page.js"),
        "data": data,
    }
    return template.fill("page.html", parts)


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
        "audio": template.audio_url(entry.track.audio, folder),
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
