"""What can be learnt about a track while an engine works on it: its stage, and the text of its answers."""

from __future__ import annotations

from collections.abc import Callable
from enum import StrEnum


class Stage(StrEnum):
    """How far a track is."""

    PREPARING = "preparing"  # its audio is decoded
    WAITING = "waiting"  # for a slot, or for the model to load
    HEARING = "hearing"  # the engine processes the audio
    ANSWERING = "answering"
    CAPTIONING = "captioning"  # another machine has it, which does not report its stages


class Observer:
    """Follows one track. All methods may be called from any thread, and do nothing here.

    ``wants_text``: whether pieces of answers are to be sent, which costs the engine something for each token.
    """

    wants_text: bool = False

    def reached(self, stage: Stage) -> None:
        """Note the stage that the track is in now."""

    def placed(self, name: str) -> None:
        """Note which member of a pool, or node of a cluster, has the track."""

    def answered(self, number: int, of: int) -> None:
        """Note that ``number`` of ``of`` prompts have their result."""

    def text(self, preset: str, piece: str) -> None:
        """Take the next characters of an answer; may raise AnswerCancelledError to end the answers."""


UNOBSERVED = Observer()


class TextObserver(Observer):
    """Passes the pieces of the answer to a single prompt to a function."""

    wants_text = True

    def __init__(self, on_text: Callable[[str], None]) -> None:
        self._on_text = on_text

    def text(self, preset: str, piece: str) -> None:
        """See ``Observer.text``."""
        self._on_text(piece)


def observer_of(on_text: Callable[[str], None] | None) -> Observer:
    """Return what passes the pieces of a single answer to ``on_text``, if there is one."""
    return TextObserver(on_text) if on_text else UNOBSERVED


def pieces_for(observer: Observer, preset: str, is_first: bool = False) -> Callable[[str], None] | None:
    """Return what takes the pieces of an answer, None where they are not needed.

    ``is_first``: they are needed to know when the first answer begins, also where nobody wants the text.
    """
    if observer is UNOBSERVED or not (observer.wants_text or is_first):
        return None

    def on_piece(text: str) -> None:
        observer.reached(Stage.ANSWERING)
        if observer.wants_text:
            observer.text(preset, text)

    return on_piece
