"""Make a report: one page, or for a large dataset an index and a folder of pages, so that memory does not grow."""

from __future__ import annotations

import urllib.parse
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from itertools import islice
from pathlib import Path

from musicflamingo_cli.errors import ConfigError
from musicflamingo_cli.exports.output import new_folder, remove_export
from musicflamingo_cli.report import template
from musicflamingo_cli.report.contents import Entry, Source, read_entries
from musicflamingo_cli.report.figures import Figures
from musicflamingo_cli.report.page import MARKER, Part, name_of, write_index, write_tracks
from musicflamingo_cli.report.survey import survey

TRACKS_PER_PAGE = 5000  # a page of 25 MB with five presets, which a browser opens in seconds
Progress = Callable[[Sequence[Entry]], None]


def write_report(source: Source, out: Path, progress: Progress = lambda entries: None) -> Figures:
    """Write the report to ``out`` and return its figures; with over 5,000 tracks, to pages in a folder beside it.

    ``progress`` is called with the tracks that were read, several at a time. Raises ConfigError where ``out`` exists
    and is not a report, or the folder holds foreign files.
    """
    template.require_free(out, MARKER)
    found = survey(source.root, source.presets, source.follow_links)
    figures = Figures(source=source, survey=found, failures=Counter(found.failures))
    entries = _counted(read_entries(source, found, progress), figures)
    if found.tracks <= TRACKS_PER_PAGE:
        listed = list(entries)
        with template.new_page(out, MARKER) as file:
            write_tracks(file, figures, listed, out.parent)
        if _holds_pages(folder_of(out)):  # of an earlier report, when there were more tracks
            remove_export(folder_of(out))
        return figures
    if folder_of(out).exists() and not _holds_pages(folder_of(out)):
        raise ConfigError(f"{folder_of(out)} exists and holds no pages of a report", "move it away, or use --out")
    with new_folder(folder_of(out), overwrite=True) as building:
        parts = list(_write_parts(building, out, entries, figures))
    with template.new_page(out, MARKER) as file:
        write_index(file, figures, parts, folder_of(out))
    return figures


def folder_of(out: Path) -> Path:
    """Return the folder of the pages of a report that needs several."""
    return out.with_name(f"{out.stem}-pages")


def _holds_pages(folder: Path) -> bool:
    first = folder / _file_of(1)
    return first.is_file() and template.has_marker(first, MARKER)


def _counted(entries: Iterator[Entry], figures: Figures) -> Iterator[Entry]:
    for entry in entries:
        figures.add(entry)
        yield entry


def _write_parts(building: Path, out: Path, entries: Iterator[Entry], whole: Figures) -> Iterator[Part]:
    """Write the pages into ``building``, which becomes the folder of ``out``'s pages; yield each once it is written."""
    number, done, first = 0, 0, next(entries, None)
    while first is not None:
        listed = [first, *islice(entries, TRACKS_PER_PAGE - 1)]
        first = next(entries, None)  # whether there is another page
        number += 1
        figures = Figures(source=whole.source, survey=whole.survey)
        for entry in listed:
            figures.add(entry)
        place = {
            "first": done + 1,
            "last": done + len(listed),
            "index": f"../{urllib.parse.quote(out.name.encode('utf-8', 'surrogateescape'))}",
            "previous": _file_of(number - 1) if number > 1 else "",
            "next": _file_of(number + 1) if first else "",
        }
        done += len(listed)
        with template.open_page(building / _file_of(number)) as file:
            write_tracks(file, figures, listed, folder_of(out), place)
        name, last_name = (name_of(entry, whole.source.root) for entry in (listed[0], listed[-1]))
        yield Part(file=_file_of(number), first=name, last=last_name, figures=figures)


def _file_of(number: int) -> str:
    return f"{number:04}.html"
