"""A comparison as a table of marked text: a row for each thing compared, a cell for each side."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from enum import StrEnum

from musicflamingo_cli.captioning.comparison import PresetComparison
from musicflamingo_cli.text.agreement import Match, Overlap

NONE = "—"
_AGREES = (Match.SAME, Match.NEITHER)
_ONE_SIDED = (Match.ONLY_FIRST, Match.ONLY_SECOND, Match.NEITHER)


class Tone(StrEnum):
    """How a run of text is shown."""

    PLAIN = "plain"
    DIFFERS = "differs"  # from the side it is compared with
    REMARK = "remark"
    FAILED = "failed"


@dataclass(frozen=True, slots=True)
class Run:
    """Text in one tone."""

    text: str
    tone: Tone = Tone.PLAIN


@dataclass(frozen=True, slots=True)
class Row:
    """A label, and a cell of runs for each side."""

    label: str
    cells: tuple[tuple[Run, ...], ...]


def rows_of(preset: PresetComparison) -> list[Row]:
    """Return the rows of one preset, the same for all sides; the captions are the last."""
    columns = [dict(_column(preset, index)) for index in range(len(preset.captions))]
    return [Row(label, tuple(column[label] for column in columns)) for label in columns[0]]


def _column(preset: PresetComparison, index: int) -> Iterator[tuple[str, tuple[Run, ...]]]:
    """Yield label and cell of each row for one side."""
    caption = preset.captions[index]
    facts = caption.facts
    agreement = preset.agreement(index or 1)
    yield "seconds", (Run(NONE if caption.seconds is None else f"{caption.seconds:.1f}"),)
    yield "tokens", (Run(NONE if caption.tokens is None else str(caption.tokens)),)
    tempo = "" if facts.tempo is None else f"{facts.tempo:g} BPM"
    yield "tempo", _claim(tempo, agreement.tempo if agreement else None, index)
    yield "key", _claim(facts.key, agreement.key if agreement else None, index)
    yield "genres", _terms(facts.genres, agreement.genres if agreement else None, index)
    yield "instruments", _terms(facts.instruments, agreement.instruments if agreement else None, index)
    if caption.failure:
        hint = f" - {caption.failure.hint}" if caption.failure.hint else ""
        yield "caption", (Run(f"failed: {caption.failure.reason}", Tone.FAILED), Run(hint, Tone.REMARK))
    else:
        marked = preset.marked(index)
        yield "caption", tuple(Run(text, Tone.DIFFERS if differs else Tone.PLAIN) for text, differs in marked)


def _claim(claim: str, match: Match | None, index: int) -> tuple[Run, ...]:
    """Return a tempo or key, with a remark how it agrees with the first side's."""
    if not claim:
        return (Run(NONE),)
    run = Run(claim, Tone.PLAIN if match is None or match in _AGREES else Tone.DIFFERS)
    if not index or match is None or match in _ONE_SIDED:
        return (run,)
    return run, Run(f" ({match})", Tone.REMARK)


def _terms(terms: tuple[str, ...], overlap: Overlap | None, index: int) -> tuple[Run, ...]:
    """Return terms, with a remark how many of them all the first side names, too."""
    runs: list[Run] = []
    for term in terms:
        differs = overlap is not None and term not in overlap.shared
        runs += [Run(", ")] if runs else []
        runs.append(Run(term, Tone.DIFFERS if differs else Tone.PLAIN))
    runs = runs or [Run(NONE)]
    if index and overlap and overlap.total:
        runs.append(Run(f" ({len(overlap.shared)} of {overlap.total} shared)", Tone.REMARK))
    return tuple(runs)
