"""How `status` shows what it counted."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from rich.table import Table
from rich.text import Text

from musicflamingo_cli.captioning.status import Status
from musicflamingo_cli.cli.console import Console, duration
from musicflamingo_cli.cli.symbols import Symbols
from musicflamingo_cli.cli.tables import Sign, facts, listing, marked
from musicflamingo_cli.sidecars.staleness import CaptionState

_FACT_WIDTH = 8  # cells
_UNFINISHED = (CaptionState.MISSING, CaptionState.OUTDATED)


def show(console: Console, status: Status, folders: str) -> None:
    """Print the counts. ``folders``: as they are typed."""
    if console.as_json:
        return
    console.listing(facts(list(_facts(status, console.symbols)), _FACT_WIDTH))
    console.data("")
    console.listing(_presets(status.presets, console.symbols))
    todo = list(_todo(status, folders, console.symbols))
    if todo:
        console.data("")
        console.listing(facts(todo, _FACT_WIDTH))


def _facts(status: Status, symbols: Symbols) -> Iterator[tuple[str, Text | str]]:
    tracks = f"{status.tracks} tracks: {status.complete} complete, {status.untouched} without any caption"
    is_complete = 0 < status.tracks == status.complete
    yield "captions", marked(Sign.OK, tracks, symbols) if is_complete else tracks
    yield "audio", f"{duration(status.heard_seconds)} of audio captioned"
    if status.segmented:
        segments = f"{status.segments_complete} of {status.segments} complete, in {status.segmented} tracks"
        whole = status.segments_complete == status.segments
        yield "segments", marked(Sign.OK, segments, symbols) if whole else segments
    if status.checked or status.check_outdated:
        outdated = f"; {status.check_outdated} checks are outdated" if status.check_outdated else ""
        checked = f"{status.checked} checked, {status.contradicted} with a contradiction{outdated}"
        doubtful = status.contradicted or status.check_outdated
        yield "trust", marked(Sign.WARNING if doubtful else Sign.OK, checked, symbols)


def _todo(status: Status, folders: str, symbols: Symbols) -> Iterator[tuple[str, Text | str]]:
    if status.check_outdated:
        yield "outdated", f"check again: musicflamingo check {folders}"
    if status.failed:
        yield "failed", marked(Sign.FAILURE, f"{status.failed} failed in the last run", symbols)
        yield "", f"{symbols.hint} retry: musicflamingo batch {folders} --retry-failed"
    if status.unreadable:
        yield "sidecars", marked(Sign.FAILURE, f"{status.unreadable} sidecars cannot be read", symbols)
        yield "", f"{symbols.hint} list: musicflamingo batch {folders} --dry-run"
    if status.skipped:
        links = f", {status.links_out} of them links that lead out of the dataset" if status.links_out else ""
        yield "skipped", f"{status.skipped} files skipped{links}"


def _presets(presets: Mapping[str, Mapping[str, int]], symbols: Symbols) -> Table:
    """A line a preset, a column a state; in words where there are no heads."""
    states = list(dict.fromkeys(state for counts in presets.values() for state in counts))
    table = listing()
    if symbols.are_words:
        for name, counts in presets.items():
            table.add_row(name, ", ".join(f"{number} {state}" for state, number in counts.items()))
        return table
    table.add_column("preset", overflow="fold")
    for state in states:
        table.add_column(state, justify="right", no_wrap=True)
    table.add_column("", no_wrap=True)
    for name, counts in presets.items():
        is_complete = not any(counts.get(state) for state in _UNFINISHED)
        sign = Sign.OK if is_complete else Sign.WARNING
        numbers = [str(counts[state]) for state in states]
        table.add_row(name, *numbers, marked(sign, "complete" if is_complete else "incomplete", symbols))
    return table
