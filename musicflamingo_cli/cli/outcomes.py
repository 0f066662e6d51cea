"""How a track's outcome and a batch's summary are shown, as text and as JSON."""

from __future__ import annotations

import shlex
import sys
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from musicflamingo_cli.captioning.captioner import Captioner
from musicflamingo_cli.captioning.run_log import default_folder
from musicflamingo_cli.cli.caption_stream import show_wrapped
from musicflamingo_cli.cli.console import Console, duration
from musicflamingo_cli.types import COMPLETE, Outcome, Summary

TINY_MODEL_WARNING = (
    "TINY MODEL: it was trained on simple synthesised music only; its captions of real music are meaningless."
    "\nFor real captions use a real model: musicflamingo models list"
)
_SHOWN_FAILURES = 20


def announce(console: Console, captioner: Captioner) -> None:
    """Show which engine and model answer (with -v), and a warning where it is the tiny model."""
    engine, model = captioner.engine, captioner.model
    slots = f", {engine.slots} tracks at once" if engine.slots > 1 else ""
    made_with = ", ".join(f"{name} {value}" for name, value in engine.provenance.items())
    console.detail(f"engine {engine.name} ({made_with}{slots}), because {captioner.reason}")
    console.detail(f"model {model.path}{f', because {model.reason}' if model.reason else ''}")
    if model.projector_name:
        console.detail(f"projector {model.projector_name}")
    if model.is_tiny:
        console.warn(TINY_MODEL_WARNING)


def show(console: Console, outcome: Outcome, text_only: bool = False) -> None:
    """Print a track's captions as data and the rest as messages; ``text_only``: no file name, no preset names."""
    audio = outcome.track.audio
    if outcome.captions and sys.stdout.isatty() and not console.as_json and not console.plain:
        if not text_only:
            console.data(f"{audio}")
        show_wrapped(console, outcome.captions, text_only)
    elif text_only:
        for caption in outcome.captions:
            console.data(caption.text)
    elif outcome.captions:
        console.data(f"{audio}")
        for caption in outcome.captions:
            console.data(f"  {caption.preset}: {caption.text}")
    if outcome.skipped:
        console.info(f"skipped {audio}: {outcome.skipped}")
    for note in outcome.notes:
        console.info(f"{audio}: {note}")
    for failure in outcome.failures:
        console.track_failed(failure, audio)
    if outcome.saved:
        console.info(f"saved: {outcome.track.sidecar}")


def outcome_json(outcome: Outcome, engine: str, model: str) -> dict[str, Any]:
    """Return the object that `--json` prints for a track; its shape is a contract (docs/cli.md)."""
    segments = [
        {"start": each.start, "end": each.end, "captions": {caption.preset: caption.text for caption in each.captions}}
        for each in outcome.segments
    ]
    return {
        "track": str(outcome.track.audio),
        "sidecar": str(outcome.track.sidecar) if outcome.saved or outcome.skipped == COMPLETE else None,
        "captions": {caption.preset: caption.text for caption in outcome.captions},
        **({"segments": segments} if segments else {}),
        "failures": [{"preset": f.preset, "reason": f.reason, "hint": f.hint} for f in outcome.failures],
        "skipped": outcome.skipped or None,
        "engine": engine,
        "model": model,
        "audio_seconds": round(outcome.audio_seconds, 3),
        "seconds": round(outcome.seconds, 3),
    }


def summary_lines(summary: Summary, seconds: float) -> list[str]:
    """Return the lines that a batch ends with: the counts, then what failed, by name."""
    interrupted = f", {summary.interrupted} interrupted" if summary.interrupted else ""
    lines = [
        f"{summary.captioned} captioned, {summary.complete} already complete, {summary.failed} failed,"
        f" {summary.skipped} skipped{interrupted};"
        f" {duration(summary.audio_seconds)} of audio in {duration(seconds)}{_rate(summary, seconds)}"
    ]
    if summary.too_short:
        lines.append(f"{summary.too_short} of the skipped tracks are too short (see --min-seconds)")
    if summary.failures:
        kinds = Counter(failure.kind for _, failure in summary.failures)
        lines.append(f"failed: {', '.join(f'{kind} {number}' for kind, number in kinds.most_common())}")
        lines += [f"  {failure.line(audio)}" for audio, failure in summary.failures[:_SHOWN_FAILURES]]
        unlisted = len(summary.failures) + summary.failures_unlisted - _SHOWN_FAILURES
        if unlisted > 0:
            lines.append(f"  and {unlisted} more; the run log names all of them")
    return lines


def _rate(summary: Summary, seconds: float) -> str:
    return f" ({summary.audio_seconds / seconds:.1f} h of audio per hour)" if summary.captioned and seconds else ""


def next_commands(
    summary: Summary, folders: Sequence[Path], run_log: Path | None, of_segments: bool = False
) -> list[str]:
    """Return the lines that say what makes sense after a batch, ready to be typed; ``run_log``: as given to it.

    ``of_segments``: it captioned segments, which `review` does not show.
    """
    named, first = shlex.join(map(str, folders)), shlex.quote(str(folders[0]))
    commands = []
    if summary.captioned or summary.complete:
        if not of_segments:
            commands.append((f"musicflamingo review {first}", "listen, correct and approve"))
        commands.append((f"musicflamingo report {first}", "figures, captions and audio on one page"))
    if summary.failed:
        log = f" --run-log {shlex.quote(str(run_log))}" if run_log and run_log.parent != default_folder() else ""
        commands.append((f"musicflamingo batch {named} --retry-failed{log}", f"try the {summary.failed} failed again"))
    width = max((len(command) for command, _ in commands), default=0)
    return [f"  {command:<{width}}  {meaning}" for command, meaning in commands]
