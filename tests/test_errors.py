"""Errors cross process boundaries (workers, other machines), so each of them must arrive as it left."""

from __future__ import annotations

import errno
import inspect
import pickle

import pytest

from musicflamingo_cli import errors
from musicflamingo_cli.errors import AnswerError, FailureKind, MusicFlamingoError, SettingError, StorageError

ARGUMENTS: dict[type[MusicFlamingoError], tuple[object, ...]] = {
    SettingError: ("top_p", "must be between 0 and 1", "for example: 1"),
    StorageError: ("cannot write a.INFO", "check the disk", OSError(errno.ENOSPC, "No space left")),
    AnswerError: ("refused", "ask again", FailureKind.REFUSED_ANSWER),
}
CLASSES = [
    each for _, each in inspect.getmembers(errors, inspect.isclass) if issubclass(each, MusicFlamingoError)
]  # fmt: skip


@pytest.mark.parametrize("kind", CLASSES)
def test_every_error_pickles(kind: type[MusicFlamingoError]) -> None:
    error = kind(*ARGUMENTS.get(kind, ("what happened", "what to do")))  # type: ignore[arg-type]
    copy = pickle.loads(pickle.dumps(error))
    assert type(copy) is kind
    assert (str(copy), copy.hint, copy.exit_code) == (str(error), error.hint, error.exit_code)
    for name in ("kind", "field"):
        assert getattr(copy, name, None) == getattr(error, name, None)


def test_all_classes_are_tried() -> None:
    assert len(CLASSES) > 20
