"""The worker process of `finetune`: encodes the audio once, trains, and writes the adapter's matrices.

It reads a plan from the folder of the training, writes what happens there as lines of JSON (``EVENTS``), and leaves the
trained adapter in ``TRAINED``. Several GPUs: as many of these processes, which accelerate starts and connects.
"""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import Any

import soundfile

from musicflamingo_cli.audio.clip import prepared
from musicflamingo_cli.errors import AudioError, MusicFlamingoError
from musicflamingo_cli.finetuning.features import Encoded, FeatureStore, encode
from musicflamingo_cli.finetuning.plan import Plan
from musicflamingo_cli.finetuning.student import Student
from musicflamingo_cli.finetuning.training import Report, Trainer
from musicflamingo_cli.finetuning.worker_files import EVENTS, PLAN, TRAINED

_GB = 10**9
_REPORT_SECONDS = 0.5


class Events:
    """The file in which the command reads how far the worker is. ``is_main``: only one process writes."""

    def __init__(self, folder: Path, is_main: bool) -> None:
        self._file = (folder / EVENTS).open("a", encoding="utf-8") if is_main else None
        self._last = 0.0

    def send(self, kind: str, **values: Any) -> None:
        """Write one event."""
        if self._file:
            self._file.write(json.dumps({"kind": kind, **values}) + "\n")
            self._file.flush()

    def report(self, report: Report) -> None:
        """Write a step, but not more often than a person reads; an epoch always."""
        now = time.monotonic()
        if report.validation is not None or now - self._last > _REPORT_SECONDS:
            self._last = now
            self.send("step", **asdict(report))


class Features:
    """The encoded audio of the plan's tracks: what is not on disk yet is made, each process its share."""

    def __init__(self, plan: Plan, accelerator: Any) -> None:
        self._plan = plan
        self._accelerator = accelerator
        self._store = FeatureStore(Path(plan.features), int(plan.settings.cache_gb * _GB))

    def make(self, model: Any, events: Events) -> None:
        """Encode what is missing. Raises AudioError, and OSError where the disk is full."""
        accelerator, tracks = self._accelerator, self._plan.tracks
        missing = [number for number in range(len(tracks)) if self._store.read(self._key(number)) is None]
        mine = missing[accelerator.process_index :: accelerator.num_processes]
        events.send("features", made=0, total=len(missing), kept=len(tracks) - len(missing))
        keys = {self._key(number) for number in range(len(tracks))}
        for made, number in enumerate(mine, 1):
            with prepared(Path(tracks[number].path), self._plan.excerpt) as clip:
                encoded = encode(model, soundfile.read(clip.path, dtype="float32")[0])
            size = encoded.states.numel() * encoded.states.element_size()
            if not self._store.make_room(size, keys):
                limit = self._plan.settings.cache_gb
                raise AudioError(
                    f"the encoded audio of {len(tracks)} tracks takes more than {limit:g} GB",
                    "allow more with --cache-gb, or use less audio: --max-seconds 60",
                )
            self._store.write(self._key(number), encoded)
            done = min(len(missing), made * accelerator.num_processes)
            events.send("features", made=done, total=len(missing), kept=len(tracks) - len(missing))
        accelerator.wait_for_everyone()

    def __call__(self, number: int) -> Encoded:
        """Return a track's features. Raises FileNotFoundError where another program deleted them."""
        if (found := self._store.read(self._key(number))) is None:
            raise FileNotFoundError(f"the encoded audio {self._store.path_of(self._key(number))} was deleted")
        return found

    def _key(self, number: int) -> str:
        excerpt = self._plan.excerpt
        part = f"{excerpt.start:g}-{excerpt.fraction:g}-{excerpt.max_seconds:g}"
        return f"{self._plan.tracks[number].audio}-{part}"


def train(folder: Path, make_features: Callable[[Plan, Any], Features] = Features) -> None:
    """Do what the plan in ``folder`` says. Raises whatever torch, transformers and peft raise."""
    from accelerate import Accelerator

    plan = Plan.read(folder / PLAN)
    accelerator = Accelerator(cpu=plan.device == "cpu")
    events = Events(folder, accelerator.is_main_process)
    events.send("loading")
    student = Student(plan, str(accelerator.device) if accelerator.num_processes > 1 else None)
    events.send("loaded", device=student.model.details["device"], dtype=student.model.details["dtype"])
    features = make_features(plan, accelerator)
    features.make(student.model, events)
    student.add_adapter()
    trainer = Trainer(student, plan, features, folder, accelerator)
    progress = trainer.run(events.report)
    if accelerator.is_main_process:
        student.save(folder / TRAINED)
        events.send("done", **asdict(progress))
    accelerator.wait_for_everyone()
    accelerator.end_training()


def main() -> None:
    """Run the worker; the argument is the folder of the training."""
    folder = Path(sys.argv[1])
    try:
        train(folder)
    except MusicFlamingoError as error:
        Events(folder, True).send("failed", reason=str(error), hint=error.hint)
        sys.exit(1)
    except Exception as error:  # whatever torch, transformers or peft raise: one line, for whoever reads the log
        import traceback

        traceback.print_exc()
        Events(folder, True).send("failed", reason=f"{type(error).__name__}: {error}", hint="")
        sys.exit(1)


if __name__ == "__main__":
    main()
