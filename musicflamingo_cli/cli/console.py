"""The one place that talks to a person or a program: data on stdout, words on stderr."""

from __future__ import annotations

import contextlib
import json
import os
import sys
import time
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from musicflamingo_cli.errors import MusicFlamingoError
from musicflamingo_cli.types import COMPLETE, Failure, Outcome, Summary

if TYPE_CHECKING:
    from rich.progress import Progress, TaskID

_SHOWN_FAILURES = 20
_TRACKS_TO_RECKON_FROM = 10


@dataclass(slots=True)
class Console:
    """Where output goes and how much of it there is. ``as_json``: stdout carries JSON and nothing else."""

    as_json: bool = False
    quiet: bool = False
    verbose: bool = False
    colour: bool = True
    _bar: BatchBar | None = field(default=None, repr=False)

    def data(self, text: str) -> None:
        """A line of what was asked for, on stdout."""
        if not self.as_json:
            _write(sys.stdout, text)

    def json(self, value: Any) -> None:
        """A value as one line of JSON on stdout, with --json only."""
        if self.as_json:
            _write(sys.stdout, json_line(value))

    def say(self, text: str, style: str = "") -> None:
        """Words for a person on stderr; silent with -q."""
        if not self.quiet:
            self._tell(text, style)

    def detail(self, text: str) -> None:
        """Words on stderr with -v only."""
        if self.verbose:
            self._tell(text, "dim")

    def warn(self, text: str) -> None:
        """What a person must not miss: also with -q."""
        self._tell(text, "yellow")

    def fail(self, error: MusicFlamingoError) -> None:
        """An error of ours: its sentence, and what to type next."""
        self._tell(f"error: {error}", "red")
        if error.hint:
            self._tell(f"  {error.hint}", "")

    def _tell(self, text: str, style: str) -> None:
        if self._bar is not None:
            self._bar.print(text, style)
        elif style and self.colour and sys.stderr.isatty():
            _rich(self.colour).print(printable(text), style=style, markup=False, highlight=False, soft_wrap=True)
        else:
            _write(sys.stderr, text)

    @contextlib.contextmanager
    def batch_bar(self, total: int, lanes: int = 1) -> Iterator[BatchBar]:
        """A live bar on a terminal, one line a track elsewhere, nothing with -q."""
        live = sys.stderr.isatty() and not self.quiet
        with BatchBar(total, live, self.quiet, self.colour, lanes) as bar:
            self._bar = bar
            try:
                yield bar
            finally:
                self._bar = None


class BatchBar:
    """Progress over the tracks that need work: rate, time left, the tracks in work, failures so far."""

    def __init__(self, total: int, live: bool, quiet: bool, colour: bool, lanes: int = 1) -> None:
        self._lanes = lanes
        self._in_work: list[Path] = []  # one a lane, and the one that is being prepared
        self._audio_seconds = 0.0
        self._total = total
        self._live = live
        self._quiet = quiet
        self._colour = colour
        self._done = 0
        self._failed = 0
        self._started = time.monotonic()
        self._progress: Progress | None = None
        self._task: TaskID | None = None

    def __enter__(self) -> BatchBar:
        if self._live:
            from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn

            rate, failed = TextColumn("{task.fields[rate]}"), TextColumn("[red]{task.fields[failed]}")
            track = TextColumn("{task.fields[track]}", markup=False)
            self._progress = Progress(
                BarColumn(20),
                MofNCompleteColumn(),
                rate,
                TextColumn("{task.fields[left]}"),
                failed,
                track,
                console=_rich(self._colour),
            )
            self._task = self._progress.add_task("", total=self._total, rate="", left="", failed="", track="")
            self._progress.start()
        return self

    def __exit__(self, *_: object) -> None:
        if self._progress is not None:
            self._progress.stop()

    def print(self, text: str, style: str) -> None:
        if self._progress is not None:
            console = self._progress.console
            console.print(printable(text), style=style or None, markup=False, highlight=False, soft_wrap=True)
        else:
            _write(sys.stderr, text)

    def starting(self, audio: Path) -> None:
        """From any thread."""
        self._in_work.append(audio)
        self._show_tracks()

    def ended(self, audio: Path) -> None:
        """A track is out of work; whether it is finished is another question."""
        with contextlib.suppress(ValueError):
            self._in_work.remove(audio)
        self._show_tracks()

    def _show_tracks(self) -> None:
        if self._progress is not None and self._task is not None:
            width = max(12, 40 // self._lanes)
            names = [printable(audio.name)[:width] for audio in self._in_work[: self._lanes]]
            self._progress.update(self._task, track=" | ".join(names))

    def finished(self, outcome: Outcome) -> None:
        """Count an outcome that took work, and tell it where there is no live bar."""
        if outcome.was_interrupted:
            return
        self._done += 1
        self._failed += bool(outcome.failures)
        self._audio_seconds += outcome.audio_seconds
        hours = max(time.monotonic() - self._started, 1e-9) / 3600
        rate = f"{self._done / hours:.0f} tracks/h, {self._audio_seconds / 3600 / hours:.1f} h of audio/h"
        if self._progress is not None and self._task is not None:
            failed = f"{self._failed} failed" if self._failed else ""
            self._progress.update(self._task, advance=1, rate=rate, failed=failed, left=self._left(hours))
        elif not self._quiet:
            word = "failed" if outcome.failures else "done"
            line = f"[{self._done}/{self._total}] {word} {outcome.track.audio} ({outcome.seconds:.1f} s; {rate}, "
            _write(sys.stderr, f"{line}{self._left(hours)}, {self._failed} failed)")

    def _left(self, hours: float) -> str:
        """The time left, told once there is something to reckon it from."""
        if self._done < min(_TRACKS_TO_RECKON_FROM, self._total):
            return "time left not known yet"
        return f"{duration(max(0, self._total - self._done) / self._done * hours * 3600)} left"


# -- the shapes of what is told ------------------------------------------------------------------------


def outcome_json(outcome: Outcome, engine: str, model: str) -> dict[str, Any]:
    """The object that `--json` prints for a track; its shape is a contract (see README)."""
    return {
        "track": str(outcome.track.audio),
        "sidecar": str(outcome.track.sidecar) if outcome.saved or outcome.skipped == COMPLETE else None,
        "captions": {caption.preset: caption.text for caption in outcome.captions},
        "failures": [{"preset": f.preset, "reason": f.reason, "hint": f.hint} for f in outcome.failures],
        "skipped": outcome.skipped or None,
        "engine": engine,
        "model": model,
        "audio_seconds": round(outcome.audio_seconds, 3),
        "seconds": round(outcome.seconds, 3),
    }


def failure_line(audio: Path, failure: Failure) -> str:
    preset = f" [{failure.preset}]" if failure.preset else ""
    return f"{audio}{preset}: {failure.reason}" + (f" - {failure.hint}" if failure.hint else "")


def summary_lines(summary: Summary, seconds: float) -> list[str]:
    """What a batch ends with: the counts, then what failed, by name."""
    interrupted = f", {summary.interrupted} interrupted" if summary.interrupted else ""
    lines = [
        f"{summary.captioned} captioned, {summary.complete} already complete, {summary.failed} failed,"
        f" {summary.skipped} skipped{interrupted};"
        f" {duration(summary.audio_seconds)} of audio heard in {duration(seconds)}"
    ]
    if summary.failures:
        kinds = Counter(failure.kind for _, failure in summary.failures)
        lines.append(f"failed: {', '.join(f'{kind} {number}' for kind, number in kinds.most_common())}")
        lines += [f"  {failure_line(audio, failure)}" for audio, failure in summary.failures[:_SHOWN_FAILURES]]
        unlisted = len(summary.failures) + summary.failures_unlisted - _SHOWN_FAILURES
        if unlisted > 0:
            lines.append(f"  and {unlisted} more; the run log names all of them")
    return lines


def duration(seconds: float) -> str:
    """Seconds as a person says them: 42 s, 3 min 05 s, 2 h 10 min."""
    whole = round(seconds)
    if whole < 60:
        return f"{whole} s"
    if whole < 3600:
        return f"{whole // 60} min {whole % 60:02d} s"
    return f"{whole // 3600} h {whole % 3600 // 60:02d} min"


def json_line(value: Any) -> str:
    """One line of JSON; names that are not UTF-8 on disk are escaped, so that a reader gets them back."""
    text = json.dumps(value, ensure_ascii=False)
    try:
        text.encode()
    except UnicodeEncodeError:
        return json.dumps(value)
    return text


def printable(text: str) -> str:
    """Text that any terminal takes: no lone surrogates (names that are not UTF-8), no control characters."""
    text = text.encode("utf-8", "surrogateescape").decode("utf-8", "replace")
    return "".join(c if c.isprintable() or c in "\n\t" else "\ufffd" for c in text)


def _write(stream: Any, text: str) -> None:
    encoding = stream.encoding or "utf-8"
    shown = text if stream is sys.stdout else printable(text)
    try:
        stream.write(shown.encode(encoding, "replace").decode(encoding) + "\n")
        stream.flush()
    except BrokenPipeError:  # the reader (head, less) has gone: that is its right
        devnull = os.open(os.devnull, os.O_WRONLY)
        os.dup2(devnull, stream.fileno())
        os.close(devnull)


def _rich(colour: bool) -> Any:
    import rich.console

    return rich.console.Console(stderr=True, no_color=not colour)
