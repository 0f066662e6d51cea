"""What can go wrong, as types. Every error is one line for a person and a hint: what to type next."""

from __future__ import annotations

import difflib
import errno
import reprlib
from collections.abc import Iterable
from enum import IntEnum, StrEnum


class ExitCode(IntEnum):
    """The exit codes of the command line (a contract: docs/cli.md)."""

    TRACK_FAILED = 1
    USAGE = 2
    TOOL_MISSING = 3
    MODEL = 4
    INTERRUPTED = 130


class FailureKind(StrEnum):
    """What failures are counted by, in summaries, run logs and reports."""

    UNREADABLE_AUDIO = "unreadable audio"
    SILENT = "silent"
    TOO_SHORT = "too short"
    TOO_LONG = "too long"
    ENGINE = "engine"
    TIMEOUT = "timeout"
    WORKER_LOST = "worker lost"  # another process or machine that had the track; says nothing about it
    NOT_HEARD = "not heard"
    REFUSED_ANSWER = "refused answer"
    PROMPT = "prompt"
    SIDECAR = "sidecar"
    SIDECAR_BUSY = "sidecar busy"
    NO_SPACE = "no space"
    NO_PERMISSION = "no permission"
    NAME_TOO_LONG = "name too long"
    SYSTEM = "system"
    SKIPPED = "skipped"
    INTERRUPTED = "interrupted"  # says nothing about the track
    OTHER = "error"
    BUG = "bug"

    @property
    def is_transient(self) -> bool:
        """Whether it may go away without anybody doing anything, so that retrying makes sense."""
        return self in _TRANSIENT

    @property
    def blames_engine(self) -> bool:
        """Whether it says more about the engine, the model or the disk than about the track."""
        return self in _BLAMES_ENGINE


_TRANSIENT = frozenset(
    [
        FailureKind.ENGINE,
        FailureKind.TIMEOUT,
        FailureKind.WORKER_LOST,
        FailureKind.SYSTEM,
        FailureKind.SIDECAR_BUSY,
        FailureKind.NO_SPACE,
    ]
)
_BLAMES_ENGINE = frozenset(
    [
        FailureKind.ENGINE,
        FailureKind.TIMEOUT,
        FailureKind.NOT_HEARD,
        FailureKind.REFUSED_ANSWER,
        FailureKind.BUG,
        FailureKind.NO_SPACE,
    ]
)


class MusicFlamingoError(Exception):
    """Base of all errors of this package: ``str(error)`` is the message, ``hint`` says what to do or type next."""

    exit_code = ExitCode.TRACK_FAILED

    def __init__(self, message: str, hint: str = "") -> None:
        super().__init__(message)
        self.hint = hint


class ConfigError(MusicFlamingoError):
    """The command line, a settings file or a prompts file is wrong."""

    exit_code = ExitCode.USAGE


class SettingError(ConfigError):
    """A setting has a value that it cannot have. ``field`` is its name in ``Settings``; the message begins with it."""

    def __init__(self, field: str, message: str, hint: str = "") -> None:
        super().__init__(f"{field} {message}", hint)
        self.field = field

    def __reduce__(self) -> tuple[type[SettingError], tuple[str, str, str]]:
        """Pickle with the three arguments, so that the error can cross a process boundary."""
        return SettingError, (self.field, str(self).removeprefix(f"{self.field} "), self.hint)


class ToolMissingError(MusicFlamingoError):
    """A program that the work needs is not installed or does not run."""

    exit_code = ExitCode.TOOL_MISSING


class ModelError(MusicFlamingoError):
    """The model or its projector is missing or unusable."""

    exit_code = ExitCode.MODEL


class HubUnreachableError(ModelError):
    """There is no connection to the hub: asking it for something else makes no sense."""


class BatchStoppedError(MusicFlamingoError):
    """Many tracks in a row failed, and none of them is to blame."""


class TrackError(MusicFlamingoError):
    """One track cannot be captioned; the others can. ``kind`` is what the failure is counted by."""

    kind = FailureKind.OTHER


class AudioError(TrackError):
    """The audio cannot be read, or holds nothing to caption."""

    kind = FailureKind.UNREADABLE_AUDIO


class SilentError(AudioError):
    """The audio holds no sound."""

    kind = FailureKind.SILENT


class TooShortError(AudioError):
    """The audio is shorter than what the model can use."""

    kind = FailureKind.TOO_SHORT


class NoRoomError(AudioError):
    """The temporary folder cannot hold the clip."""

    kind = FailureKind.NO_SPACE


class SidecarError(TrackError):
    """The sidecar cannot be read or written; it was not touched."""

    kind = FailureKind.SIDECAR


class SidecarBusyError(SidecarError):
    """Another program held the sidecar's lock for too long."""

    kind = FailureKind.SIDECAR_BUSY


class StorageError(SidecarError):
    """The file system refused to write a sidecar; ``kind`` says in which way (see ``kind_of``)."""

    def __init__(self, message: str, hint: str, cause: OSError) -> None:
        super().__init__(message, hint)
        self.cause = cause
        self.kind = kind_of(cause)

    def __reduce__(self) -> tuple[type[StorageError], tuple[str, str, OSError]]:
        """Pickle with the cause, from which the kind follows."""
        return StorageError, (str(self), self.hint, self.cause)


class EngineError(TrackError):
    """The engine gave no answer: it crashed, hung, or rejected the input."""

    kind = FailureKind.ENGINE


class TimedOutError(EngineError):
    """The engine gave no answer in time."""

    kind = FailureKind.TIMEOUT


class AnswerCancelledError(EngineError):
    """The person who asked does not want the rest of the answer."""

    kind = FailureKind.INTERRUPTED


class AnswerError(EngineError):
    """A question of a conversation got no answer that can be used; ``kind`` is what the failure is counted by."""

    def __init__(self, message: str, hint: str, kind: FailureKind) -> None:
        super().__init__(message, hint)
        self.kind = kind

    def __reduce__(self) -> tuple[type[AnswerError], tuple[str, str, FailureKind]]:
        """Pickle with the three arguments, so that the error can cross a process boundary."""
        return AnswerError, (str(self), self.hint, self.kind)


class TooLongError(EngineError):
    """The clip does not fit into the model's context."""

    kind = FailureKind.TOO_LONG


class StoppedError(EngineError):
    """The run was interrupted before the answer arrived; nothing is wrong with the track."""

    kind = FailureKind.INTERRUPTED


class PromptError(TrackError):
    """Nothing is left of a prompt once the variables that this track lacks are taken out."""

    kind = FailureKind.PROMPT


def kind_of(error: OSError) -> FailureKind:
    """Return the kind of failure that an error of the file system is counted as."""
    if error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG):
        return FailureKind.NO_SPACE
    if error.errno in (errno.EACCES, errno.EPERM, errno.EROFS):
        return FailureKind.NO_PERMISSION
    return FailureKind.SYSTEM


_SHORT = reprlib.Repr()
_SHORT.maxlevel, _SHORT.maxstring, _SHORT.maxother = 2, 80, 80


def shown(value: object) -> str:
    """Return a value of a file for a message: its ``repr``, shortened, however large or nested it is.

    >>> shown([["a" * 1000] * 1000] * 1000)[:20]
    "[['aaaaaaaaaaaaaaaaa"
    """
    try:
        return _SHORT.repr(value)
    except (ValueError, RecursionError):  # a number of more digits than Python prints
        return f"<{type(value).__name__}>"


def suggestion(word: str, known: Iterable[str]) -> str:
    """Return `; did you mean x?`, or the list of known words, to end a message about an unknown word."""
    known = sorted(known)
    word = word[:80]
    match = difflib.get_close_matches(word, known, 1, 0.5)
    return f"; did you mean {match[0]}?" if match else f"; known: {', '.join(known)}"
