"""A captioner whose work is done by actors: what a batch needs, on many machines."""

from __future__ import annotations

import contextlib
import logging
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

from musicflamingo_cli.captioning.saving import operating_system_failure, save_outcome
from musicflamingo_cli.captioning.worker_pool import SlotGate
from musicflamingo_cli.choices import Writer
from musicflamingo_cli.cluster.actor import SentTrack, node_facts
from musicflamingo_cli.cluster.plan import ClusterPlan, Facts, Work, facts_of, mismatch, settings_for_nodes
from musicflamingo_cli.cluster.session import session
from musicflamingo_cli.cluster.worker import ActorWorker, WorkerLostError
from musicflamingo_cli.config import Settings
from musicflamingo_cli.engines.observer import UNOBSERVED, Observer, Stage
from musicflamingo_cli.engines.pool.member import Member, MemberStatus
from musicflamingo_cli.engines.pool.roster import Roster
from musicflamingo_cli.errors import (
    AudioError,
    ConfigError,
    EngineError,
    ModelError,
    StoppedError,
    ToolMissingError,
    TrackError,
)
from musicflamingo_cli.models.model import Model
from musicflamingo_cli.prompts import Preset
from musicflamingo_cli.sidecars.captions import caption_key
from musicflamingo_cli.sidecars.leftovers import lock_now, sweep_folder, temporary_name
from musicflamingo_cli.sidecars.merge import read_sidecar
from musicflamingo_cli.types import COMPLETE, Failure, Outcome, Track

logger = logging.getLogger(__name__)

_STOPPING_SECONDS = 5.0  # for finished answers to come back
_CHECK_SECONDS = 120.0  # for the nodes' first answer
_TRIES = 2
_PATIENCE = 300.0  # seconds to wait where all actors are lost: their nodes may be starting again
_LARGEST_SENT = 1 << 30  # bytes of a file that a node gets


class ClusterCaptioner:
    """Gives each track to an actor; see ``retries.TrackCaptioner``. ``model``: the one that all actors run."""

    def __init__(self, workers: Sequence[Member[ActorWorker]], model: Model, writer: Writer) -> None:
        self._roster = Roster(workers, _PATIENCE)
        self.model = model
        self._writer = writer
        self._gate = SlotGate(lambda: self._roster.slots)  # who waits in the roster is woken by each track that ends

    @property
    def engine_name(self) -> str:
        """The actors' engine, as the first that started has it."""
        return next((each.worker.engine for each in self._roster.all if each.worker.engine), "ray")

    @property
    def slots(self) -> int:
        """How many tracks the actors that work caption at once; it grows with the cluster."""
        return self._roster.slots

    @property
    def members(self) -> Sequence[MemberStatus]:
        """How each actor is, by its node's name."""
        nodes = [member.worker.node for member in self._roster.all]
        return [
            replace(each, name=f"{node} ({each.name})") for each, node in zip(self._roster.status(), nodes, strict=True)
        ]

    def wait_for_one(self) -> None:
        """Wait for the first actor, so that its engine is known. Raises what all actors fail with."""
        member = self._roster.take(Path())
        self._roster.give_back(member, member.worker)

    def caption(
        self,
        track: Track,
        presets: Sequence[Preset],
        info: Mapping[str, Any],
        *,
        save: bool,
        observer: Observer = UNOBSERVED,
    ) -> Outcome:
        """Have an actor caption a track, another one where that is lost; see ``retries.TrackCaptioner``.

        Raises ToolMissingError and ModelError where all actors do.
        """
        observer.reached(Stage.WAITING)
        with self._gate:
            return self._caption(track, presets, info, save, observer)

    def _caption(
        self, track: Track, presets: Sequence[Preset], info: Mapping[str, Any], save: bool, observer: Observer
    ) -> Outcome:
        started = time.monotonic()
        failed: Member[ActorWorker] | None = None
        error: EngineError | None = None
        for _ in range(_TRIES):
            try:
                if failed is not None and save and self._writer is Writer.ACTORS:
                    presets, info = _still_missing(track, presets, info)
                    if not presets:
                        return Outcome(track, skipped=COMPLETE)
                member = self._roster.take(track.audio, failed)
                observer.placed(member.worker.node)
                observer.reached(Stage.CAPTIONING)
            except TrackError as problem:
                return _failed(track, problem, started)
            try:
                return self._caption_by(member, track, presets, info, save)
            except WorkerLostError as lost:
                if self._roster.is_stopped:
                    return _failed(track, StoppedError("the run was stopped", "run the same command again"), started)
                self._roster.leave_out(member, lost)
                failed, error = member, lost
            except (ModelError, ToolMissingError, EngineError) as problem:
                self._roster.leave_out(member, problem)
                failed = member
                error = problem if isinstance(problem, EngineError) else EngineError(str(problem), problem.hint)
            except AudioError as problem:
                return _failed(track, problem, started)
            except OSError as problem:
                return Outcome(track, failures=(operating_system_failure(problem),))
            finally:
                self._roster.give_back(member, member.worker)
        assert error is not None
        return _failed(track, error, started)

    def _caption_by(
        self, member: Member[ActorWorker], track: Track, presets: Sequence[Preset], info: Mapping[str, Any], save: bool
    ) -> Outcome:
        worker = member.worker
        writes = save and self._writer is Writer.ACTORS and worker.sees
        sent = None if worker.sees else _to_send(track.audio)
        outcome = worker.caption(track, presets, info, writes, sent).outcome
        self._roster.note_success(member)
        outcome = replace(outcome, track=track, keys=outcome.keys if save else {})
        return save_outcome(outcome)

    def close(self) -> None:
        """End all tracks, save their finished answers, then end the actors and what they started."""
        with self._roster.changed:
            self._roster.is_stopped = True
            self._roster.changed.notify_all()
            for member in self._roster.all:
                member.worker.stop()
            deadline = time.monotonic() + _STOPPING_SECONDS
            while any(member.busy for member in self._roster.all) and time.monotonic() < deadline:
                self._roster.changed.wait(0.1)
        self._roster.close()


def _still_missing(
    track: Track, presets: Sequence[Preset], info: Mapping[str, Any]
) -> tuple[Sequence[Preset], Mapping[str, Any]]:
    """What an actor that was lost may have written is not made again; what it left beside the track is removed."""
    sweep_folder(track.sidecar.parent)
    now = read_sidecar(track.sidecar)
    left = [each for each in presets if now.get(caption_key(each.name)) == info.get(caption_key(each.name))]
    return left, now


def _to_send(audio: Path) -> SentTrack:
    """A file for a node that does not see it. Raises AudioError for one that is too large, OSError."""
    status = audio.stat()
    if status.st_size > _LARGEST_SENT:
        raise AudioError(
            f"it has over {_LARGEST_SENT >> 30} GiB, and the nodes do not see its folder",
            "share the folder with the nodes, or caption it without --ray",
        )
    return SentTrack(audio.read_bytes(), status.st_mtime_ns)


def _failed(track: Track, error: TrackError, started: float) -> Outcome:
    """The outcome of a track that no actor captioned."""
    hint = error.hint or "run the same command again"
    failure = Failure(preset="", kind=error.kind, reason=str(error), hint=hint)
    return Outcome(track, failures=(failure,), seconds=time.monotonic() - started)


@dataclass(frozen=True, slots=True)
class _Resources:
    """What each actor gets, and how many actors there are."""

    cpus: int
    gpus: float
    actors: int


@contextlib.contextmanager
def open_cluster(
    plan: ClusterPlan,
    settings: Settings,
    model: Model,
    *,
    prompts: int,
    tracks: int,
    roots: Sequence[Path],
    overwrite: bool = False,
    improve: bool = False,
    replace_edited: bool = False,
    verbose: bool = False,
) -> Iterator[ClusterCaptioner]:
    """Open a captioner on a cluster for ``tracks`` tracks below ``roots``, and end all of it afterwards.

    Raises ToolMissingError without Ray, ConfigError where the cluster cannot be reached or has no room, ModelError
    where a node has another program, Python or model.
    """
    expected = facts_of(model.files)
    with session(plan) as ray, _probes(roots) as probes:
        resources = _resources(ray, plan, settings, tracks)
        own = settings_for_nodes(settings, model, resources.cpus)
        _compare_nodes(ray, expected, [file.absolute() for file in model.files], resources)
        work = Work(
            settings=own,
            prompts=prompts,
            overwrite=overwrite,
            improve=improve,
            replace_edited=replace_edited,
            probes=probes,
            verbose=verbose,
        )
        options = {"num_cpus": resources.cpus, "num_gpus": resources.gpus}
        members = []
        for number in range(1, resources.actors + 1):
            member = Member(f"actor {number}", partial(ActorWorker, ray, work, options, expected))
            member.start_later()
            members.append(member)
        captioner = ClusterCaptioner(members, model, plan.writer)
        try:
            captioner.wait_for_one()
            yield captioner
        finally:
            captioner.close()


def _resources(ray: Any, plan: ClusterPlan, settings: Settings, tracks: int) -> _Resources:
    """Return what each actor gets. Raises ConfigError where no node has that much and the cluster cannot grow."""
    nodes = [node["Resources"] for node in ray.nodes() if node["Alive"]]
    total = {name: sum(float(node.get(name, 0)) for node in nodes) for name in ("CPU", "GPU")}
    gpus = plan.gpus if plan.gpus is not None else (1.0 if total["GPU"] else 0.0)
    most_cpus = int(max(float(node.get("CPU", 0)) for node in nodes))
    per_gpu = int(total["CPU"] / total["GPU"] * gpus) if gpus and total["GPU"] else most_cpus
    cpus = plan.cpus or settings.threads or max(1, min(per_gpu, most_cpus, 8))
    fits = sum(_fits(node, cpus, gpus) for node in nodes)
    actors = plan.actors or min(fits, max(1, tracks))
    if not actors:
        gpu = f" and {gpus:g} GPUs" if gpus else ""
        raise ConfigError(
            f"no node of the cluster has {cpus} processors{gpu} for an actor",
            "ask for less with --cpus-per-actor and --gpus-per-actor, or name --actors for a cluster that grows",
        )
    if actors > fits:
        logger.info("the cluster has room for %d of %d actors now; the others start when it grows", fits, actors)
    return _Resources(cpus, gpus, min(actors, max(1, tracks)))


def _fits(node: Mapping[str, float], cpus: int, gpus: float) -> int:
    """How many actors a node has room for."""
    by_cpu = int(float(node.get("CPU", 0)) / cpus)
    return min(by_cpu, int(float(node.get("GPU", 0)) / gpus + 1e-6)) if gpus else by_cpu


def _compare_nodes(ray: Any, expected: Facts, files: Sequence[Path], resources: _Resources) -> None:
    """Raise ModelError for the nodes that may get an actor and differ from this machine, all in one message."""
    from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

    ask = ray.remote(node_facts)
    asked = {
        ask.options(
            num_cpus=0, max_retries=0, scheduling_strategy=NodeAffinitySchedulingStrategy(node["NodeID"], soft=False)
        ).remote(files): node["NodeManagerHostname"]
        for node in ray.nodes()
        if node["Alive"] and _fits(node["Resources"], resources.cpus, resources.gpus)
    }
    problems: dict[str, list[str]] = {}
    for question, host in asked.items():
        try:
            name, facts = ray.get(question, timeout=_CHECK_SECONDS)
        except Exception as error:
            lacks = "ModuleNotFoundError" in str(error)
            problems[host] = ["no musicflamingo" if lacks else f"no answer ({type(error).__name__})"]
            continue
        if differences := expected.differences(facts):
            problems[name] = differences
    if problems:
        raise (
            mismatch(*next(iter(problems.items())))
            if len(problems) == 1
            else mismatch(", ".join(problems), sorted({each for found in problems.values() for each in found}))
        )


@contextlib.contextmanager
def _probes(roots: Sequence[Path]) -> Iterator[tuple[Path, ...]]:
    """A file in each dataset that shows an actor whether it sees the same folder.

    Its name, which holds 64 random bits, shows it. It is locked meanwhile: a sweep removes it only once this process is
    gone. Where none can be made, no actor sees the dataset, and files are sent.
    """
    made: list[Path] = []
    with contextlib.ExitStack() as stack:
        for root in dict.fromkeys(root if root.is_dir() else root.parent for root in roots):
            file = temporary_name(root.absolute() / "probe")
            made.append(file)
            stack.callback(_remove, file)
            with contextlib.suppress(OSError):
                lock_now(stack.enter_context(file.open("x")).fileno())
        yield tuple(made)


def _remove(file: Path) -> None:
    with contextlib.suppress(OSError):
        file.unlink(missing_ok=True)
