"""An actor as the driver sees it: a member of a roster, which answers, is slow, or is gone."""

from __future__ import annotations

import contextlib
import logging
import threading
from collections.abc import Mapping, Sequence
from typing import Any

from musicflamingo_cli.cluster.actor import CONTROL, CaptionActor, Reply, SentTrack, Status
from musicflamingo_cli.cluster.plan import Facts, Work, mismatch
from musicflamingo_cli.engines.pool.member import NotYetError
from musicflamingo_cli.errors import EngineError, FailureKind, MusicFlamingoError
from musicflamingo_cli.prompts import Preset
from musicflamingo_cli.system.log_relay import replay
from musicflamingo_cli.types import Track

logger = logging.getLogger(__name__)

START_SECONDS = 20.0  # to wait for an actor's first answer, again and again: a cluster may have to grow first
PING_SECONDS = 15.0  # between questions whether an actor lives, and to wait for the answer
_STOP_SECONDS = 3.0  # for an actor to end its engine
_MOST_SLOTS = 64
_GROUPS = {CONTROL: 4, "work": _MOST_SLOTS + 2}


class WorkerLostError(EngineError):
    """An actor or its node is gone, or does not answer; says nothing about the track."""

    kind = FailureKind.WORKER_LOST


class ActorWorker:
    """One actor. Its calls are made from the batch's threads."""

    def __init__(
        self,
        ray: Any,
        work: Work,
        resources: Mapping[str, float],
        expected: Facts,
        kind: type[Any] = CaptionActor,
    ) -> None:
        """Ask the cluster for the actor, without waiting for it."""
        self._ray = ray
        self._expected = expected
        self._status: Status | None = None
        self._stopping: Any = None  # the answer to ``stop``
        self._question: Any = None  # an unanswered one, so that they do not pile up
        self._asking = threading.Lock()
        actor = ray.remote(concurrency_groups=_GROUPS)(kind).options(
            max_restarts=-1,
            max_task_retries=0,
            runtime_env={"env_vars": {"OMP_NUM_THREADS": str(int(resources["num_cpus"]) or 1)}},
            **resources,
        )
        self._actor = actor.remote(work)

    @property
    def slots(self) -> int:
        """How many tracks it gets at once: as its engine has slots, and one more, whose clip is prepared meanwhile."""
        return min(_MOST_SLOTS, self._status.slots) + 1 if self._status else 1

    @property
    def node(self) -> str:
        """The name of its node, once it is known."""
        return self._status.node if self._status else "an actor"

    @property
    def engine(self) -> str:
        """The name of its engine; empty until that is known."""
        return self._status.engine if self._status else ""

    @property
    def sees(self) -> bool:
        """Whether it sees the datasets' folders."""
        return self._status is not None and self._status.sees

    def ping(self) -> None:
        """Learn whether it works. Raises NotYetError while it has never answered, WorkerLostError, ModelError."""
        from ray.exceptions import GetTimeoutError

        seconds = PING_SECONDS if self._status else START_SECONDS
        with self._asking:
            if self._question is None:
                self._question = self._actor.status.options(concurrency_group=CONTROL).remote()
            try:
                status: Status = self._ray.get(self._question, timeout=seconds)
            except GetTimeoutError as error:
                if self._status is None:
                    raise NotYetError from None
                raise WorkerLostError(f"no answer within {seconds:.0f} s") from error
            except Exception as error:
                self._question = None
                raise _lost(error) from error
            self._question = None
        self._status = status
        replay(status.records, status.node)
        if differences := self._expected.differences(status.facts):
            raise mismatch(status.node, differences)

    def caption(
        self, track: Track, presets: Sequence[Preset], info: Mapping[str, Any], writes: bool, sent: SentTrack | None
    ) -> Reply:
        """Caption a track there, for as long as the actor lives. Raises WorkerLostError, ModelError, ToolMissingError.

        A frozen node ends no call for a minute, and a long track may take an hour: so it is asked whether it lives.
        """
        call = self._actor.caption.options(concurrency_group="work").remote(
            track.absolute(), list(presets), dict(info), writes, sent
        )
        while True:
            done, _ = self._ray.wait([call], timeout=PING_SECONDS)
            if done:
                break
            self._require_alive()
        try:
            reply: Reply = self._ray.get(call)
        except Exception as error:
            raise _lost(error) from error
        replay(reply.records, self.node)
        return reply

    def _require_alive(self) -> None:
        from ray.exceptions import GetTimeoutError

        try:
            question = self._actor.process.options(concurrency_group=CONTROL).remote()
            self._ray.get(question, timeout=PING_SECONDS)
        except GetTimeoutError as error:
            raise WorkerLostError(f"{self.node} does not answer") from error
        except Exception as error:
            raise _lost(error) from error

    def stop(self) -> None:
        """Have it end its tracks and return their finished answers, then its engine; do not wait."""
        with contextlib.suppress(Exception):
            self._stopping = self._actor.stop.options(concurrency_group=CONTROL).remote()

    def close(self) -> None:
        """End the actor and what it started; wait a moment for it to remove its temporary files, if it was stopped."""
        with contextlib.suppress(Exception):
            if self._stopping is not None:
                self._ray.wait([self._stopping], timeout=_STOP_SECONDS)
        with contextlib.suppress(Exception):
            self._ray.kill(self._actor, no_restart=True)


def _lost(error: Exception) -> MusicFlamingoError:
    """Return our own error that an actor raised, else that the actor or its node is gone."""
    from ray.exceptions import RayTaskError

    cause = error.cause if isinstance(error, RayTaskError) else error
    if isinstance(cause, MusicFlamingoError):
        return cause
    lines = [line for line in str(cause).strip().splitlines() if line.strip()]
    if "ModuleNotFoundError" in str(cause) and "musicflamingo_cli" in str(cause):
        return EngineError("a node lacks this program", "install the same version on every node")
    return WorkerLostError(f"{type(error).__name__}: {lines[0][:200] if lines else ''}")
