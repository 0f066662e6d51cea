"""A process that holds the model: its private folder, its log, its start and its end."""

from __future__ import annotations

import shutil
import tempfile
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from pathlib import Path

from musicflamingo_cli.errors import ToolMissingError
from musicflamingo_cli.system import processes
from musicflamingo_cli.system.temporary import folder_prefix

LOADING_SECONDS = 600.0  # a 7B model from a slow disk


class Died(Exception):
    """A resident process ended, or stopped answering, in the middle of its work.

    ``is_first_report``: no other thread has reported the same death yet.
    """

    is_first_report = False


class ResidentProcess(ABC):
    """A process with ``slots`` slots of ``context`` tokens each. It ends when we end, in whatever way."""

    child: processes.Guarded

    def __init__(self, context: int, slots: int, parent_folder: str | None = None) -> None:
        """Make its private folder, in ``parent_folder`` or else in the system's temporary folder."""
        self.context = context
        self.slots = slots
        self._folder = Path(tempfile.mkdtemp(prefix=folder_prefix(), dir=parent_folder))  # mode 0700
        self._last_log = ""

    def _launch(
        self, command: Sequence[str], environment: Mapping[str, str], hint: str, pass_fds: tuple[int, ...] = ()
    ) -> None:
        """Start it. Raises ToolMissingError, with ``hint``, where that is not possible."""
        try:
            self.child = processes.Guarded(list(command), self._folder / "log", dict(environment), pass_fds)
        except OSError as error:
            shutil.rmtree(self._folder, ignore_errors=True)
            raise ToolMissingError(f"{command[0]} cannot be started: {error.strerror}", hint) from error

    @abstractmethod
    def wait_until_ready(self) -> None:
        """Wait until the model is loaded. Raises Died when the process ends first or takes too long."""

    def log(self) -> str:
        """Return the end of its log, also after ``close``."""
        return self._last_log or processes.read_log(self._folder / "log")

    def close(self) -> None:
        """End the process and the requests in progress, from any thread; may be called more than once."""
        self.child.kill()
        self._last_log = self._last_log or self.log()
        shutil.rmtree(self._folder, ignore_errors=True)
