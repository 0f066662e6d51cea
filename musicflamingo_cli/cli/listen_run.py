"""`listen` as a person watches it: clips, then what comes back of their captions, then the page."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import typer

from musicflamingo_cli.cli.console import Console, duration
from musicflamingo_cli.cli.listen_progress import ClipBar, clip_bar
from musicflamingo_cli.cli.outcomes import TINY_MODEL_WARNING
from musicflamingo_cli.config import GenerationSettings, Settings
from musicflamingo_cli.errors import ExitCode
from musicflamingo_cli.listening.clips import MadeClip
from musicflamingo_cli.listening.job import ListenJob
from musicflamingo_cli.listening.round_trip import FIELDS, PresetCount, count_by_preset
from musicflamingo_cli.listening.sources import Source
from musicflamingo_cli.models.generators import Generator
from musicflamingo_cli.report.listening_page import require_free_page, write_listening

if TYPE_CHECKING:
    from rich.table import Table

    from musicflamingo_cli.listening.returning import Returning

PAGE = "listen.html"
_SHOWN = 60  # characters of what was cut off


class ListenRun:
    """Makes the clips of one command, and shows them."""

    def __init__(
        self,
        console: Console,
        out: Path,
        model: Generator,
        settings: Settings,
        generation: GenerationSettings,
        melody: bool,
    ) -> None:
        self._console = console
        self._page = out / PAGE
        self._model = model
        self._settings = settings
        self._generation = generation
        require_free_page(self._page)
        self._job = ListenJob(out, model, settings, generation, melody)
        self._clips: list[MadeClip] = []

    def run(self, sources: Sequence[Source], round_trip: bool) -> None:
        """Make and show everything. Raises typer.Exit with the exit code where something failed or was interrupted."""
        returning = self._returning() if round_trip else None
        licence = f" (licence {self._model.licence})" if self._model.licence else ""
        self._console.info(f"{self._model.name}{licence}: {len(sources)} clips of {self._generation.seconds:g} s")
        started = time.monotonic()
        was_interrupted = False
        try:
            with (
                clip_bar(self._console, len(sources), "made") as bar,
                contextlib.closing(self._job.clips(sources, lambda step: bar.step(step.share, step.clips))) as clips,
            ):
                for clip in clips:
                    self._clips.append(clip)
                    self._show(clip, bar)
            if returning:
                self._return(returning)
        except KeyboardInterrupt:
            was_interrupted = True
        order = {source.name: number for number, source in enumerate(sources)}
        self._clips.sort(key=lambda clip: order[clip.source.name])
        self._finish(time.monotonic() - started)
        if was_interrupted:
            self._console.warn("interrupted; finished clips are kept, and the same command continues from here")
            raise typer.Exit(ExitCode.INTERRUPTED)
        if any(clip.failure or (round_trip and clip.round_trip and clip.round_trip.failure) for clip in self._clips):
            raise typer.Exit(ExitCode.TRACK_FAILED)

    def _returning(self) -> Returning:
        from musicflamingo_cli.listening.returning import Returning
        from musicflamingo_cli.prompts import load_presets, prompts_files

        found = Returning(self._settings, load_presets(prompts_files(None, self._settings.prompts)))
        if found.model.is_tiny:
            self._console.warn(TINY_MODEL_WARNING)
        return found

    def _show(self, clip: MadeClip, bar: ClipBar) -> None:
        if clip.failure:
            self._console.track_failed(clip.failure, clip.source.track.audio)
        elif clip.cut_off:
            shown = clip.cut_off.strip()
            shown = shown if len(shown) <= _SHOWN else f"{shown[:_SHOWN]}…"
            self._console.warn(
                f"{clip.source.track.audio} [{clip.source.preset}]: the caption has {clip.tokens} T5 tokens,"
                f" more than the text encoder reads; cut off: {shown}"
            )
        bar.finished(f"{clip.wav.name}{' (was there already)' if clip.is_kept else ''}", has_failed=bool(clip.failure))

    def _return(self, returning: Returning) -> None:
        """Caption again the clips that need it."""
        clips = [clip for clip in self._clips if returning.is_needed(clip)]
        if not clips:
            return
        self._console.info(f"{returning.model.name}: captions {len(clips)} clips again")
        with clip_bar(self._console, len(clips), "captioned") as bar:
            for clip in returning.run(clips):
                if clip.round_trip and clip.round_trip.failure:
                    self._console.warn(f"{clip.wav}: not captioned again: {clip.round_trip.failure}")
                bar.finished(clip.wav.name, has_failed=bool(clip.round_trip and clip.round_trip.failure))

    def _finish(self, seconds: float) -> None:
        """Write the page, and print all results."""
        for clip in self._clips:
            self._console.json(_as_json(clip))
            if clip.failure is None:
                self._console.data(str(clip.wav))
        counts = count_by_preset(
            (each.source.preset, each.caption_read, each.round_trip) for each in self._clips if each.round_trip
        )
        if counts:
            self._console.table(_table(counts))
            self._console.info(
                "an indication of what captions carry, not a score of truth;"
                " by chance: the claims of another track's caption"
            )
        made = sum(clip.failure is None and not clip.is_kept for clip in self._clips)
        kept = sum(clip.is_kept for clip in self._clips)
        failed = sum(clip.failure is not None for clip in self._clips)
        page = None
        if made + kept:
            write_listening(self._clips, self._page)
            page = str(self._page)
        self._console.json({"page": page, "round_trip": [each.as_json() for each in counts]})
        self._console.info(f"{made} made, {kept} were there, {failed} failed, in {duration(seconds)}")
        if page:
            self._console.info(f"page: {page}")


def _as_json(clip: MadeClip) -> dict[str, Any]:
    """The object that `listen --json` prints for a clip (docs/listen.md)."""
    failure = clip.failure
    values = (
        clip.as_json() if failure is None else {"track": str(clip.source.track.audio), "preset": clip.source.preset}
    )
    return {
        **values,
        "clip": None if failure else str(clip.wav),
        "was_there": clip.is_kept,
        "failure": failure and {"reason": failure.reason, "hint": failure.hint},
    }


def _table(counts: Sequence[PresetCount]) -> Table:
    from rich import box
    from rich.table import Table

    table = Table(box=box.SIMPLE_HEAD, padding=(0, 1), pad_edge=False)
    for name in ("preset", "clips", *FIELDS, "all", "by chance"):
        table.add_column(name)
    for each in counts:
        table.add_row(
            each.preset,
            str(each.clips),
            *(str(each.fields[name]) for name in FIELDS),
            str(each.total),
            str(each.chance),
        )
    return table
