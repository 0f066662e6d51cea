"""A worker process with a model, seen from our side: its start, and requests to it. See messages.py."""

from __future__ import annotations

import contextlib
import fcntl
import itertools
import logging
import multiprocessing
import os
import queue
import socket
import threading
from collections.abc import Iterator, Mapping, Sequence
from multiprocessing.connection import Connection

from musicflamingo_cli.engines.messages import Begun, Cancel, ClipRequest, ForSlot, Notice, Piece, Ready, Reply
from musicflamingo_cli.engines.observer import UNOBSERVED, Observer, Stage
from musicflamingo_cli.engines.resident_process import LOADING_SECONDS, Died, ResidentProcess
from musicflamingo_cli.errors import AnswerCancelledError
from musicflamingo_cli.types import Clip, Prompt, Sampling

logger = logging.getLogger(__name__)
_POLL_SECONDS = 0.2  # how often to check that the worker still runs


class WorkerProcess(ResidentProcess):
    """A running worker and the connection to it. ``details``: see messages.Ready."""

    def __init__(
        self,
        command: Sequence[str],
        environment: Mapping[str, str],
        *,
        context: int,
        slots: int,
        timeout: float,
    ) -> None:
        """Start a worker without waiting for it; ``command`` gets the number of its connection as ``--connection``.

        ``timeout``: the seconds without any message after which a request fails. Raises ToolMissingError where the
        worker cannot be started.
        """
        super().__init__(context, slots)
        self.details: Mapping[str, str] = {}
        self._timeout = timeout
        self._replies: list[queue.Queue[ForSlot | None]] = [queue.Queue() for _ in range(slots)]
        self._ready = threading.Event()
        self._has_ended = False
        self._received = 0  # messages from the worker so far
        self._requests = itertools.count()
        self._sending = threading.Lock()
        ours, theirs = multiprocessing.Pipe()
        inherited = fcntl.fcntl(theirs.fileno(), fcntl.F_DUPFD_CLOEXEC, 10)  # the shell that starts it uses 0 to 9
        try:
            self._launch([*command, "--connection", str(inherited)], environment, "see -v", (inherited,))
        finally:
            theirs.close()
            os.close(inherited)
        self._connection = ours
        threading.Thread(target=self._listen, args=(ours,), daemon=True, name="worker").start()

    def wait_until_ready(self) -> None:
        """Wait until the model is loaded. Raises Died when the worker ends first or takes too long."""
        if not self._ready.wait(LOADING_SECONDS):
            raise Died(f"not ready after {LOADING_SECONDS:g} s")
        if self._has_ended:
            raise Died("it ended while loading")

    def ask(
        self,
        slot: int,
        clip: Clip,
        prompts: Sequence[Prompt],
        sampling: Sampling,
        observer: Observer = UNOBSERVED,
    ) -> Iterator[Reply]:
        """Yield the reply to each prompt, as soon as it arrives; ``observer`` gets the pieces of answers before.

        Where ``observer`` raises AnswerCancelledError, the worker stops answering, and the error is passed on. Raises
        Died where the worker ends first, TimeoutError where the next message takes too long.
        """
        paths = [str(each.path) for each in clip.all]
        request = next(self._requests)
        self.send(ClipRequest(slot, request, paths, list(prompts), sampling, observer.wants_text))
        for number in range(len(prompts)):
            while isinstance(message := self._next_about(request, slot), Piece | Begun):
                try:
                    if isinstance(message, Begun):
                        observer.reached(Stage.ANSWERING)
                    else:
                        observer.text(message.preset, message.text)
                except AnswerCancelledError:
                    self._cancel(slot, request, len(prompts) - number)
                    raise
            assert isinstance(message, Reply)
            yield message

    def _cancel(self, slot: int, request: int, unanswered: int) -> None:
        """Have the worker drop a slot's answers, and take the replies that it owes. Raises Died or TimeoutError."""
        self.send(Cancel(slot))
        while unanswered:
            unanswered -= isinstance(self._next_about(request, slot), Reply)

    def send(self, message: ForSlot) -> None:
        """Send a request to the worker. Raises Died where it has ended."""
        try:
            with self._sending:
                self._connection.send(message)
        except OSError as error:
            raise Died("it ended before the request reached it") from error

    def _next_about(self, request: int, slot: int) -> ForSlot:
        """Return the next message about a request: an answer about another clip is never taken for one about this."""
        while not isinstance(message := self.next_message(slot), Reply | Piece | Begun) or message.request != request:
            logger.warning("a message about an earlier request is dropped")
        return message

    def next_message(self, slot: int) -> ForSlot:
        """Return the next message for a slot.

        Raises Died where the worker ends first, TimeoutError after the time limit without any message from the worker,
        for whatever slot.
        """
        while True:
            received = self._received
            with contextlib.suppress(queue.Empty):
                message = self._replies[slot].get(timeout=self._timeout)
                if message is None:
                    raise Died(f"exit code {self.child.process.wait()}")
                return message
            if self._received == received:
                raise TimeoutError

    def _listen(self, connection: Connection) -> None:
        """Pass each message to the slot that it is for, until the worker has ended.

        The watcher of the worker's process group holds the other end open too, so the end of the worker does not
        close the connection.
        """
        with contextlib.suppress(EOFError, OSError):
            while True:
                if connection.poll(_POLL_SECONDS):
                    self._received += 1
                    self._deliver(connection.recv())
                elif not self.child.is_running:
                    break
        self._has_ended = True
        self._ready.set()
        with contextlib.suppress(OSError), socket.socket(fileno=os.dup(connection.fileno())) as line:
            line.shutdown(socket.SHUT_RDWR)  # unblocks a thread that is sending a long request which nobody reads
        with self._sending:
            connection.close()
        for replies in self._replies:
            replies.put(None)

    def _deliver(self, message: Ready | Notice | ForSlot) -> None:
        match message:
            case Ready():
                self.details = message.details
                self._ready.set()
            case Notice():
                logger.log(logging.WARNING if message.is_warning else logging.INFO, "%s", message.text)
            case _:
                self._replies[message.slot].put(message)
