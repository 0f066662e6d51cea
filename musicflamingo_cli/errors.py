"""What can go wrong, as types. Every error is one sentence for a person, and a hint: what to type next."""

from __future__ import annotations

import difflib
import errno
from collections.abc import Iterable

EXIT_TRACK_FAILED = 1
EXIT_USAGE = 2
EXIT_TOOL_MISSING = 3
EXIT_MODEL = 4
EXIT_INTERRUPTED = 130


class MusicFlamingoError(Exception):
    """Base of all errors of ours: ``str(error)`` is the sentence, ``hint`` ends with a command or an action."""

    exit_code = EXIT_TRACK_FAILED

    def __init__(self, message: str, hint: str = "") -> None:
        super().__init__(message)
        self.hint = hint


class ConfigError(MusicFlamingoError):
    """The command line, a settings file or a prompts file is wrong."""

    exit_code = EXIT_USAGE


class ToolMissingError(MusicFlamingoError):
    """A binary that the work needs is not installed or does not run."""

    exit_code = EXIT_TOOL_MISSING


class ModelError(MusicFlamingoError):
    """The model or its projector is missing or unusable."""

    exit_code = EXIT_MODEL


class HubUnreachableError(ModelError):
    """There is no connection to the hub: asking it for something else makes no sense."""


class BatchStoppedError(MusicFlamingoError):
    """Track after track failed in a way that is not theirs."""


class TrackError(MusicFlamingoError):
    """One track cannot be captioned; the others can. ``kind`` is the word that failures are counted by."""

    kind = "error"


class AudioError(TrackError):
    """The audio cannot be read, or there is nothing in it to hear."""

    kind = "unreadable audio"


class SilentError(AudioError):
    kind = "silent"


class TooShortError(AudioError):
    kind = "too short"


class NoRoomError(AudioError):
    """The temporary folder cannot hold the clip."""

    kind = "no space"


class SidecarError(TrackError):
    """The sidecar cannot be read or written; it was not touched."""

    kind = "sidecar"


class SidecarBusyError(SidecarError):
    """Another program held its lock for too long."""

    kind = "sidecar busy"


class StorageError(SidecarError):
    """The file system refused: ``kind`` says in which way (see ``kind_of``)."""

    def __init__(self, message: str, hint: str, cause: OSError) -> None:
        super().__init__(message, hint)
        self.kind = kind_of(cause)


class EngineError(TrackError):
    """The engine gave no answer: it crashed, hung, or refused the input."""

    kind = "engine"


class TimedOutError(EngineError):
    kind = "timeout"


class TooLongError(EngineError):
    """The clip does not fit into the model's context."""

    kind = "too long"


class StoppedError(EngineError):
    """The run was interrupted before the answer was there; nothing is wrong with the track."""

    kind = "interrupted"


class PromptError(TrackError):
    """Nothing is left of a prompt once the variables that this track lacks are taken out."""

    kind = "prompt"


def kind_of(error: OSError) -> str:
    """The word that a file system's refusal is counted by."""
    if error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG):
        return "no space"
    return "no permission" if error.errno in (errno.EACCES, errno.EPERM, errno.EROFS) else "system"


def nearest(word: str, known: Iterable[str]) -> str:
    """`; did you mean x?`, or the list of what there is, to end a sentence about an unknown word with."""
    known = sorted(known)
    match = difflib.get_close_matches(word, known, 1, 0.5)
    return f"; did you mean {match[0]}?" if match else f"; known: {', '.join(known)}"
