"""The log of a run: JSON Lines, one object a track. It records attempts; only the sidecars say what is captioned."""

from __future__ import annotations

import contextlib
import json
import logging
import os
from collections.abc import Iterator, Sequence
from dataclasses import asdict
from datetime import UTC, datetime
from pathlib import Path
from typing import IO, Any

from musicflamingo_cli._version import __version__
from musicflamingo_cli.errors import ConfigError, FailureKind
from musicflamingo_cli.paths import user_state_dir
from musicflamingo_cli.types import Outcome, Summary

logger = logging.getLogger(__name__)

_KEPT_LOGS = 50
_OTHER_FILE = "name another file with --run-log, or leave it out"


def default_folder() -> Path:
    """Return the folder of run logs that have no path of their own."""
    return user_state_dir() / "runs"


class RunLog:
    """Appends to a file as the run goes; a full disk ends the log, not the run."""

    def __init__(self, path: Path | None, roots: Sequence[Path]) -> None:
        """Open ``path``, or a new file in the user's state folder.

        Raises ConfigError where ``path`` is not writable. Without one, a folder that is not writable means no log, with
        a warning: what the run does for the captions needs none.
        """
        self.path = path or default_folder() / f"{datetime.now(UTC):%Y%m%d-%H%M%S}-{os.getpid()}.jsonl"
        if path is not None and os.path.lexists(path) and not _may_continue(path):
            raise ConfigError(f"{path} exists and is no run log", _OTHER_FILE)
        self._file: IO[str] | None = None
        try:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            self._file = self.path.open("a", encoding="utf-8", errors="surrogateescape")
        except OSError as error:
            reason = f"cannot write the run log {self.path}: {error.strerror}"
            if path is not None:
                raise ConfigError(reason, _OTHER_FILE) from error
            logger.warning("%s; the run has no log (name a file with --run-log)", reason)
        self._write({"event": "run", "datasets": [str(root.absolute()) for root in roots], "version": __version__})
        if path is None:
            _remove_old_logs()

    @property
    def is_kept(self) -> bool:
        """Whether there is a file."""
        return self._file is not None

    def track(self, outcome: Outcome) -> None:
        """Record the outcome of a track that was attempted."""
        self._write(
            {
                "event": "track",
                "track": str(outcome.track.audio.absolute()),
                "saved": outcome.saved,
                "captions": outcome.presets,
                "failures": [asdict(failure) for failure in outcome.failures],
                "skipped": outcome.skipped or None,
                "audio_seconds": round(outcome.audio_seconds, 3),
                "seconds": round(outcome.seconds, 3),
            }
        )

    def end(self, summary: Summary) -> None:
        """Record the counts and close the file."""
        counts = asdict(summary)
        del counts["failures"], counts["failures_unlisted"]
        self._write({"event": "end", **counts})
        self._close()

    def _close(self) -> None:
        if self._file:
            with contextlib.suppress(OSError):
                self._file.close()

    def _write(self, record: dict[str, Any]) -> None:
        if self._file is None or self._file.closed:
            return
        try:
            self._file.write(json.dumps({"time": datetime.now(UTC).isoformat(timespec="seconds"), **record}) + "\n")
            self._file.flush()
        except OSError as error:
            logger.warning("the run log %s ends here: %s", self.path, error.strerror)
            self._close()


def _may_continue(path: Path) -> bool:
    """Whether a file is empty or begins as a run log does; a device (/dev/null) takes anything."""
    if not path.is_file():
        return path.is_char_device()
    return not path.stat().st_size or next(_records(path), {}).get("event") == "run"


def _remove_old_logs() -> None:
    for old in _newest_first()[_KEPT_LOGS:]:
        with contextlib.suppress(OSError):
            old.unlink()


def latest(roots: Sequence[Path]) -> Path | None:
    """Return the newest log of a run over one of these datasets."""
    wanted = {str(root.absolute()) for root in roots}
    for path in _newest_first():
        if wanted & set(next(_records(path), {}).get("datasets", [])):
            return path
    return None


def last_seconds_per_track() -> float | None:
    """Return the seconds per captioned track in the newest run that captioned any; None where there is none."""
    for path in _newest_first():
        began = ended = ""
        done = 0
        for record in _records(path):
            if record.get("event") == "run":  # a log that was continued holds several
                began, done = record["time"], 0
            elif record.get("captions"):
                ended, done = record["time"], done + 1
        if done:
            seconds = (datetime.fromisoformat(ended) - datetime.fromisoformat(began)).total_seconds()
            return max(seconds, 0.5) / done
    return None


def _newest_first() -> list[Path]:
    with contextlib.suppress(OSError):  # it cannot be searched
        return sorted(default_folder().glob("*.jsonl"), reverse=True)
    return []


def failed(path: Path) -> dict[Path, list[str]]:
    """Return the tracks whose last record is a failure, with the kinds. Raises ConfigError where there is no log."""
    if not path.is_file():
        raise ConfigError(f"no run log at {path}", "run without --retry-failed")
    tracks: dict[Path, list[str]] = {}
    for record in _records(path):
        if record.get("event") == "track":
            kinds = [failure["kind"] for failure in record["failures"] if failure["kind"] != FailureKind.INTERRUPTED]
            if kinds:
                tracks[Path(record["track"])] = kinds
            else:
                tracks.pop(Path(record["track"]), None)
    return tracks


def _records(path: Path) -> Iterator[dict[str, Any]]:
    """The records, line by line; a last line that a kill cut short is ignored."""
    with contextlib.suppress(OSError), path.open(encoding="utf-8", errors="surrogateescape") as file:
        for line in file:
            with contextlib.suppress(ValueError, RecursionError):
                if isinstance(record := json.loads(line), dict):
                    yield record
