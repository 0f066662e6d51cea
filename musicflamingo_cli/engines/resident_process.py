"""A process that holds the model: its private folder, its log, its start and its end."""

from __future__ import annotations

import shutil
import tempfile
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from pathlib import Path

from musicflamingo_cli.errors import ToolMissingError
from musicflamingo_cli.system import processes as process
from musicflamingo_cli.system.temporary import folder_prefix

LOADING_SECONDS = 600.0  # a 7B model from a slow disk


class Died(Exception):
    """A resident process ended, or stopped answering, in the middle of its work. ``is_news``: nobody had seen it."""

    is_news = False


class ResidentProcess(ABC):
    """Has ``slots`` slots of ``context`` tokens each, and dies with us, however we die."""

    child: process.Guarded

    def __init__(self, context: int, slots: int, folder_in: str | None = None) -> None:
        """``folder_in`` is where its folder is made; None for the system's place."""
        self.context = context
        self.slots = slots
        self._folder = Path(tempfile.mkdtemp(prefix=folder_prefix(), dir=folder_in))  # mode 0700
        self._last_log = ""

    def _launch(
        self, command: Sequence[str], environment: Mapping[str, str], hint: str, pass_fds: tuple[int, ...] = ()
    ) -> None:
        """Start it. Raises ToolMissingError, with ``hint``, where that cannot be done."""
        try:
            self.child = process.Guarded(list(command), self._folder / "log", dict(environment), pass_fds)
        except OSError as error:
            shutil.rmtree(self._folder, ignore_errors=True)
            raise ToolMissingError(f"{command[0]} cannot be started: {error.strerror}", hint) from error

    @abstractmethod
    def wait_until_ready(self) -> None:
        """Until the model is loaded. Raises Died when the process ends first or takes too long."""

    def log(self) -> str:
        """The end of its log, also after ``close``."""
        return self._last_log or process.read_log(self._folder / "log")

    def close(self) -> None:
        """End it, from any thread, and what is being asked of it with it; twice does no harm."""
        self.child.kill()
        self._last_log = self._last_log or self.log()
        shutil.rmtree(self._folder, ignore_errors=True)
