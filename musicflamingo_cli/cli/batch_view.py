"""What a person sees of a batch in progress: its state, and the lines that show it."""

from __future__ import annotations

import threading
import time
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from musicflamingo_cli.cli.console import duration, one_line, printable
from musicflamingo_cli.cli.groups import Group, groups_of
from musicflamingo_cli.cli.styled import Line, Piece, Style, fit, joined, shorten_middle, width_of, wrap
from musicflamingo_cli.cli.symbols import Symbols
from musicflamingo_cli.cli.time_left import TimeLeft
from musicflamingo_cli.engines.observer import Observer, Stage
from musicflamingo_cli.engines.pool.member import MemberStatus
from musicflamingo_cli.types import Caption, Outcome

NARROWEST = 60  # columns
_BEGUN = (Stage.HEARING, Stage.ANSWERING, Stage.CAPTIONING)
_WIDEST, _WIDEST_BAR = 120, 50
_STAGE_WIDTH, _SECONDS_WIDTH = 20, 9  # `answering 10 of 12`, `12 min 05 s`, with the space before them
_CAPTION_LINES = 2


@dataclass(frozen=True, slots=True)
class Heading:
    """What does the work. ``device`` returns its name and free memory, and is called now and then."""

    engine: str
    model: str
    slots: Callable[[], int]
    device: Callable[[], str] = str


@dataclass(slots=True)
class TrackInProgress:
    """A track, its stage, and since when. ``place``: the member of a pool, or node, that has it."""

    audio: Path
    since: float
    stage: Stage = Stage.PREPARING
    answered: int = 0
    prompts: int = 0
    place: str = ""

    @property
    def stage_text(self) -> str:
        """The stage for a person."""
        if self.stage == Stage.ANSWERING and self.prompts > 1:
            return f"answering {min(self.answered + 1, self.prompts)} of {self.prompts}"
        return str(self.stage)


@dataclass(slots=True)
class _Last:
    """The last finished track, and the last failure."""

    audio: Path | None = None
    seconds: float = 0.0
    caption: Caption | None = None
    failed: Path | None = None
    reason: str = ""


class BatchView:
    """Follows a batch. Its methods may be called from any thread."""

    def __init__(
        self,
        total: int,
        sizes: Mapping[str, int],
        heading: Heading | None = None,
        members: Callable[[], Sequence[MemberStatus]] = tuple,
        roots: Sequence[Path] = (),
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """``sizes``: bytes of the tracks' audio by file extension. ``roots``: what tracks' names are shown below."""
        self.total = total
        self.done = 0
        self.failures: Counter[str] = Counter()
        self.failed = 0  # tracks
        self.time_left = TimeLeft(total, sizes, clock)
        self.device = ""  # see Heading
        self._heading = heading
        self._members = members
        self._roots = roots
        self._clock = clock
        self._lock = threading.RLock()
        self._tracks: list[TrackInProgress | None] = []  # each keeps its line
        self._last = _Last()

    # -- what happens --

    def starting(self, audio: Path) -> Observer:
        """Show a track as in progress; what is returned follows it."""
        track = TrackInProgress(audio, self._clock())
        with self._lock:
            if None in self._tracks:
                self._tracks[self._tracks.index(None)] = track
            else:
                self._tracks.append(track)
        return _TrackObserver(self, track)

    def ended(self, audio: Path) -> None:
        """Show a track as no longer in progress, finished or not."""
        with self._lock:
            self._tracks = [None if track and track.audio == audio else track for track in self._tracks]
            while self._tracks and self._tracks[-1] is None:
                self._tracks.pop()

    def finished(self, outcome: Outcome) -> None:
        """Count the outcome of a track that needed the engine."""
        audio = outcome.track.audio
        with self._lock:
            self.done += 1
            self.time_left.finished(audio, outcome.audio_seconds, outcome.seconds)
            if outcome.failures:
                self.failed += 1
                self.failures.update(str(failure.kind) for failure in outcome.failures)
                self._last.failed, self._last.reason = audio, outcome.failures[-1].reason
            captions = [*outcome.captions, *(each for segment in outcome.segments for each in segment.captions)]
            if captions:
                self._last.audio, self._last.seconds = audio, outcome.seconds
                self._last.caption = min(captions, key=lambda caption: len(caption.text))

    def left_out(self, audio: Path) -> None:
        """Count a track that turned out not to be captioned."""
        with self._lock:
            self.total -= 1
            self.time_left.finished(audio, 0.0, 0.0)

    def reached(self, track: TrackInProgress, stage: Stage) -> None:
        """Note a track's stage."""
        with self._lock:
            if stage != track.stage:
                track.stage, track.since = stage, self._clock()
            if stage in _BEGUN:
                self.time_left.began(track.audio)

    # -- what is shown --

    def time_left_text(self) -> str:
        """The time left, once something is known of it."""
        with self._lock:
            seconds = self.time_left.seconds()
        return "" if seconds is None else f"{duration(seconds)} left"

    def lines(self, columns: int, rows: int, symbols: Symbols) -> list[Line]:
        """Return the lines for a terminal of this size, the important ones where it is low."""
        width = min(columns - 1, _WIDEST)
        with self._lock:
            head = [*self._heading_lines(width, symbols), self._bar(width, symbols), self._rates(width, symbols)]
            last, failures = self._last_lines(width, symbols), self._failure_lines(width, symbols)
            tracks = self._track_lines(width, symbols)
        room = rows - 1 - len(head) - len(failures)
        if len(tracks) + len(last) > room:
            last = last if len(last) < room // 2 else []
            tracks = _cut(tracks, max(0, room - len(last)), symbols)
        sections = [section for section in (head, tracks, last, failures) if section]
        if sum(map(len, sections)) + len(sections) - 1 >= rows:
            return [line for section in sections for line in section]
        return [line for number, section in enumerate(sections) for line in ([[], *section] if number else section)]

    def _heading_lines(self, width: int, symbols: Symbols) -> list[Line]:
        heading = self._heading
        if heading is None:
            return []
        slots = heading.slots()
        at_once = f"{slots} tracks at once" if slots > 1 else "1 track at once"
        first = joined((heading.engine, heading.model, at_once, self.device), width, symbols.separator)
        lines: list[Line] = [[(one_line(fit(first, width, symbols.ellipsis)), Style.STRONG)]]
        if self.device and self.device not in first:
            lines.append([(one_line(fit(self.device, width, symbols.ellipsis)), Style.STRONG)])
        return lines

    def _bar(self, width: int, symbols: Symbols) -> Line:
        heard, left = self.time_left.heard, self.time_left.audio_left
        by_audio = left is not None and heard + left > 0
        share = heard / (heard + left) if by_audio and left is not None else self.done / max(1, self.total)
        share = 1.0 if self.done >= self.total else min(share, 0.99)
        label = f"  {share:4.0%}  {self.done} of {self.total} tracks"
        length = max(10, min(_WIDEST_BAR, width - len(label)))
        full = int(share * length)
        end = symbols.bar_end if 0 < full < length else ""
        bar: list[Piece] = [(symbols.bar * full + end, Style.GOOD)]
        return [*bar, (symbols.bar_left * (length - full - len(end)), Style.FAINT), (label, Style.PLAIN)]

    def _rates(self, width: int, symbols: Symbols) -> Line:
        heard, left = self.time_left.heard, self.time_left.audio_left
        if left is None:
            return [("the time left is known after the first track", Style.FAINT)]
        hours = max(self.time_left.elapsed, 1e-9) / 3600
        parts = (
            self.time_left_text(),
            f"{duration(heard)} of about {duration(heard + left)} of audio",
            f"{heard / 3600 / hours:.1f} h of audio per hour",
            f"{self.done / hours:.0f} tracks per hour",
        )
        return [(joined(parts, width, symbols.separator), Style.PLAIN)]

    def _track_lines(self, width: int, symbols: Symbols) -> list[Line]:
        groups = groups_of(self._members())
        if not groups:
            return [self._track_line(track, width, symbols) for track in self._tracks if track]
        lines: list[Line] = []
        left = [track for track in self._tracks if track]
        for group in groups:
            lines.append(_group_line(group, width, symbols))
            lines += [self._track_line(track, width, symbols) for track in left if track.place == group.name]
            left = [track for track in left if track.place != group.name]
        if left:
            lines.append([("next", Style.FAINT)])
        return lines + [self._track_line(track, width, symbols) for track in left]

    def _track_line(self, track: TrackInProgress, width: int, symbols: Symbols) -> Line:
        room = width - 2 - _STAGE_WIDTH - _SECONDS_WIDTH
        name = shorten_middle(self._name(track.audio), room, symbols.ellipsis)
        style = Style.FAINT if track.stage in (Stage.PREPARING, Stage.WAITING) else Style.PLAIN
        padding = " " * (room - width_of([(name, style)]))
        seconds = duration(self._clock() - track.since)
        return [(f"  {name}{padding}  {track.stage_text:<{_STAGE_WIDTH - 2}}{seconds:>{_SECONDS_WIDTH}}", style)]

    def _last_lines(self, width: int, symbols: Symbols) -> list[Line]:
        last = self._last
        if last.audio is None or last.caption is None:
            return []
        preset = f" ({last.caption.preset}, {duration(last.seconds)})"
        name = shorten_middle(self._name(last.audio), width - len(preset) - len(symbols.ok) - 1, symbols.ellipsis)
        text = wrap(printable(last.caption.text), width - 2, _CAPTION_LINES, symbols.ellipsis)
        head: Line = [(f"{symbols.ok} ", Style.GOOD), (name, Style.STRONG), (preset, Style.FAINT)]
        return [head, *([(f"  {line}", Style.PLAIN)] for line in text)]

    def _failure_lines(self, width: int, symbols: Symbols) -> list[Line]:
        last = self._last
        if last.failed is None:
            return []
        kinds = ", ".join(f"{kind} {number}" for kind, number in self.failures.most_common())
        head = fit(f"{symbols.failure} {self.failed} failed: {kinds}", width, symbols.ellipsis)
        reason = printable(" ".join(last.reason.split()))
        name = shorten_middle(self._name(last.failed), max(16, width // 3), symbols.ellipsis)
        return [[(head, Style.BAD)], [(fit(f"  last: {name}: {reason}", width, symbols.ellipsis), Style.PLAIN)]]

    def _name(self, audio: Path) -> str:
        for root in self._roots:
            if audio != root and audio.is_relative_to(root):
                return one_line(str(audio.relative_to(root)))
        return one_line(audio.name)


@dataclass(slots=True)
class _TrackObserver(Observer):
    """Passes what an engine reports of a track to the view."""

    view: BatchView
    track: TrackInProgress = field(repr=False)

    def reached(self, stage: Stage) -> None:
        self.view.reached(self.track, stage)

    def placed(self, name: str) -> None:
        self.track.place = name

    def answered(self, number: int, of: int) -> None:
        self.track.answered, self.track.prompts = number, of
        if number:
            self.view.reached(self.track, Stage.ANSWERING)


def _group_line(group: Group, width: int, symbols: Symbols) -> Line:
    style = Style.ACCENT if group.is_ready else Style.WARNING
    sign = "" if group.is_ready else f"{symbols.warning} "
    text = joined((f"{sign}{one_line(group.name)}", *group.facts), width, symbols.separator)
    return [(fit(text, width, symbols.ellipsis), style)]


def _cut(lines: list[Line], room: int, symbols: Symbols) -> list[Line]:
    """As many lines as there is room for, the last of which says how many are missing."""
    if len(lines) <= room or not room:
        return lines[:room]
    return [*lines[: room - 1], [(f"  {symbols.ellipsis} and {len(lines) - room + 1} more lines", Style.FAINT)]]
