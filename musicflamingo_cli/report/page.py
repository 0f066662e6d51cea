"""Write pages: each is one HTML file that contains style, script and data; only the audio is separate."""

from __future__ import annotations

import base64
import html
import json
import urllib.parse
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

from musicflamingo_cli._version import __version__
from musicflamingo_cli.audio.thumbnail import COLUMNS, ROWS
from musicflamingo_cli.report import template
from musicflamingo_cli.report.contents import CONTRADICTED, Entry
from musicflamingo_cli.report.figures import Figures
from musicflamingo_cli.report.survey import SHARED_CAPTION, UNUSUAL_LENGTH
from musicflamingo_cli.sidecars.segments import Segment
from musicflamingo_cli.text.t5_tokens import LIMITS

MARKER = "<!-- a report of musicflamingo -->"  # identifies reports: only these are replaced by a later one


@dataclass(frozen=True, slots=True)
class Part:
    """A page with some of the dataset's tracks: its file, the names of the first and the last, their figures."""

    file: str
    first: str
    last: str
    figures: Figures

    def as_row(self, folder: Path) -> dict[str, Any]:
        """Return its row in the index."""
        counts = self.figures
        return {
            "url": urllib.parse.quote(f"{folder.name}/{self.file}".encode("utf-8", "surrogateescape")),
            "first": self.first,
            "last": self.last,
            "tracks": counts.tracks,
            "incomplete": counts.tracks - counts.complete,
            "problems": counts.problems,
            "contradicted": counts.flags[CONTRADICTED],
            "shared": counts.flags[SHARED_CAPTION],
            "unusual": counts.flags[UNUSUAL_LENGTH],
        }


def write_tracks(
    file: IO[str], figures: Figures, entries: Iterable[Entry], folder: Path, part: dict[str, Any] | None = None
) -> None:
    """Write a page with these tracks. ``folder`` is where it will be; ``part``: its place, where it is one of many."""
    data = _data(figures) | {"picture": [COLUMNS, ROWS], "tracks": []}
    if part:
        data |= {"skipped": 0, "shared": [], "sharedCount": figures.flags[SHARED_CAPTION], "part": part}
        data["tracks"] = data.pop("tracks")  # the last, since its rows follow one by one
    before, after = template.around("page.html", "data", _parts(figures, "page.js"))
    file.write(before)
    file.write(_json(data).removesuffix("]}"))
    for number, entry in enumerate(entries):
        file.write((", " if number else "") + _json(_track(entry, figures.source.root, folder)))
    file.write("]}" + after)


def write_index(file: IO[str], figures: Figures, parts: Sequence[Part], folder: Path) -> None:
    """Write a page with the figures of the whole dataset and links to the pages with its tracks, in ``folder``."""
    summary = {
        "tracks": figures.tracks,
        "problems": figures.problems,
        "tokens": list(figures.tokens.items()),
        "tempi": list(figures.tempi.items()),
        "keys": list(figures.keys.items()),
        "genres": list(figures.genres.items()),
        "instruments": list(figures.instruments.items()),
        "moods": list(figures.moods.items()),
    }
    data = _data(figures) | {"summary": summary, "parts": [part.as_row(folder) for part in parts]}
    file.write(template.fill("index.html", _parts(figures, "index.js") | {"data": _json(data)}))


def _parts(figures: Figures, script: str) -> dict[str, str]:
    """Return what fills a template, without the data."""
    return {
        "marker": MARKER,
        "title": html.escape(figures.source.root.resolve().name or "dataset"),
        "version": __version__,
        "style": template.text_of("page.css"),
        "script": template.text_of("charts.js") + template.text_of(script),
    }


def _json(data: dict[str, Any]) -> str:
    # Inside a script element only "<" can start markup (HTML standard, 4.12.1.3).
    return json.dumps(data, ensure_ascii=False).replace("<", "\\u003c")


def _data(figures: Figures) -> dict[str, Any]:
    """Return what charts.js shows."""
    return {
        "dataset": str(figures.source.root),
        "presets": list(figures.source.presets),
        "hours": figures.hours,
        "complete": figures.complete,
        "skipped": figures.survey.skipped,
        "coverage": figures.captioned,
        "failures": dict(figures.failures.most_common()),
        "checked": figures.checked,
        "contradicted": figures.flags[CONTRADICTED],
        "shared": figures.most_shared,
        "sharedCount": figures.survey.shared,
        "limits": dict(LIMITS),
        "tokensAreEstimated": not figures.source.counter.is_exact,
    }


def name_of(entry: Entry, root: Path) -> str:
    """Return how a track is called in the report."""
    return entry.track.audio.relative_to(root).as_posix()


def _track(entry: Entry, root: Path, folder: Path) -> dict[str, Any]:
    """Return one track of the data."""
    facts = entry.facts
    return {
        "name": name_of(entry, root),
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
        "trust": entry.check.score if entry.check else None,
        "reasons": entry.check.reasons if entry.check else [],
        **({"segments": [_segment(each) for each in entry.segments]} if entry.segments else {}),
        "picture": base64.b64encode(entry.thumbnail).decode() if entry.thumbnail else "",
    }


def _segment(segment: Segment) -> dict[str, Any]:
    """Return one segment of a track's data."""
    texts = [f"{preset}: {text}" for preset, text in segment.captions.items()]
    return {
        "span": str(segment.span),
        "start": segment.span.start,
        "captions": ["silent"] if segment.is_silent else texts,
    }
