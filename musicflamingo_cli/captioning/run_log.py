"""The log of a run: JSON Lines, one object a track. It says what was tried; what is done, only the sidecars say."""

from __future__ import annotations

import contextlib
import json
import os
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from musicflamingo_cli._version import __version__
from musicflamingo_cli.config import user_state_dir
from musicflamingo_cli.errors import ConfigError
from musicflamingo_cli.types import INTERRUPTED, Outcome, Summary

_KEPT = 50
_AGAIN = "name another file with --run-log, or leave it out"


def default_folder() -> Path:
    return user_state_dir() / "runs"


class RunLog:
    """Appends to a file as the run goes; a disk that is full ends the log, not the run."""

    def __init__(self, path: Path | None, roots: Sequence[Path], warn: Callable[[str], None]) -> None:
        """``path``: None for a new file in the user's state folder. Raises ConfigError for one that is not writable."""
        self.path = path or default_folder() / f"{datetime.now(UTC):%Y%m%d-%H%M%S}-{os.getpid()}.jsonl"
        self._warn = warn
        try:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            self._file = self.path.open("a", encoding="utf-8", errors="surrogateescape")
        except OSError as error:
            raise ConfigError(f"cannot write the run log {self.path}: {error.strerror}", _AGAIN) from error
        self._write({"event": "run", "datasets": [str(root.absolute()) for root in roots], "version": __version__})
        if path is None:
            _forget_old()

    def track(self, outcome: Outcome) -> None:
        """What became of a track that was worked on."""
        self._write(
            {
                "event": "track",
                "track": str(outcome.track.audio.absolute()),
                "saved": outcome.saved,
                "captions": [caption.preset for caption in outcome.captions],
                "failures": [asdict(failure) for failure in outcome.failures],
                "skipped": outcome.skipped or None,
                "audio_seconds": round(outcome.audio_seconds, 3),
                "seconds": round(outcome.seconds, 3),
            }
        )

    def end(self, summary: Summary) -> None:
        counts = asdict(summary)
        del counts["failures"], counts["failures_unlisted"]
        self._write({"event": "end", **counts})
        with contextlib.suppress(OSError):
            self._file.close()

    def _write(self, record: dict[str, Any]) -> None:
        if self._file.closed:
            return
        try:
            self._file.write(json.dumps({"time": datetime.now(UTC).isoformat(timespec="seconds"), **record}) + "\n")
            self._file.flush()
        except OSError as error:
            self._warn(f"the run log ends here: {self.path}: {error.strerror}")
            with contextlib.suppress(OSError):
                self._file.close()


def _forget_old() -> None:
    logs = sorted(default_folder().glob("*.jsonl"))
    for old in logs[:-_KEPT]:
        old.unlink(missing_ok=True)


def latest(roots: Sequence[Path]) -> Path | None:
    """The newest log of a run over one of these datasets."""
    wanted = {str(root.absolute()) for root in roots}
    for path in _newest_first():
        if wanted & set(next(_records(path), {}).get("datasets", [])):
            return path
    return None


def last_pace() -> float | None:
    """Seconds a captioned track in the newest run that captioned any; None where there is no such run."""
    for path in _newest_first():
        began = ended = ""
        done = 0
        for record in _records(path):
            if record.get("event") == "run":  # a log that was gone on with holds several
                began, done = record["time"], 0
            elif record.get("captions"):
                ended, done = record["time"], done + 1
        if done:
            seconds = (datetime.fromisoformat(ended) - datetime.fromisoformat(began)).total_seconds()
            return max(seconds, 0.5) / done
    return None


def _newest_first() -> list[Path]:
    return sorted(default_folder().glob("*.jsonl"), reverse=True)


def failed(path: Path) -> dict[Path, list[str]]:
    """The tracks whose last word in a log is a failure, with the kinds. Raises ConfigError for no such log."""
    if not path.is_file():
        raise ConfigError(f"no run log at {path}", "run without --retry-failed")
    tracks: dict[Path, list[str]] = {}
    for record in _records(path):
        if record.get("event") == "track":
            kinds = [failure["kind"] for failure in record["failures"] if failure["kind"] != INTERRUPTED]
            if kinds:
                tracks[Path(record["track"])] = kinds
            else:
                tracks.pop(Path(record["track"]), None)
    return tracks


def _records(path: Path) -> Iterator[dict[str, Any]]:
    """Line by line; a last line that a kill cut short is passed over."""
    with contextlib.suppress(OSError), path.open(encoding="utf-8", errors="surrogateescape") as file:
        for line in file:
            with contextlib.suppress(ValueError):
                yield json.loads(line)
