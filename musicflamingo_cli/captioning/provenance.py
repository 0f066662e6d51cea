"""How a caption was made, as the sidecar records it: enough to know that it is outdated, or to make it again."""

from __future__ import annotations

import itertools
import uuid
from datetime import UTC, datetime
from typing import Any

from musicflamingo_cli._version import __version__
from musicflamingo_cli.engines import Engine
from musicflamingo_cli.models.model import Model
from musicflamingo_cli.system.identity import digest
from musicflamingo_cli.types import Caption, Clip, Excerpt


class RunIdentity:
    """What identifies a run, its model and each of its captions, without a clock."""

    def __init__(self, model: Model) -> None:
        self._model = digest(model.files)
        self._run = uuid.uuid4().hex[:16]
        self._numbers = itertools.count(1)

    def of_next_caption(self) -> dict[str, Any]:
        """Return the keys of the provenance that identify the run's next caption. From any thread."""
        identity = {"run": self._run, "number": next(self._numbers)}
        return {**identity, "model_identity": self._model} if self._model else identity


def provenance(
    caption: Caption, clip: Clip, engine: Engine, model: Model, excerpt: Excerpt, run: RunIdentity
) -> dict[str, Any]:
    """Return the provenance of one caption; the keys are part of the sidecar format (docs/sidecars.md)."""
    prompt, sampling = caption.answer.prompt, caption.answer.sampling
    made: dict[str, Any] = {
        "prompt": prompt.text,
        "template": prompt.template_hash,
        "max_tokens": prompt.max_tokens,
        "model": model.name,
        "engine": engine.name,
        **engine.provenance,
        **caption.answer.provenance,
        "temperature": sampling.temperature,
        "top_p": sampling.top_p,
        "repeat_penalty": sampling.repeat_penalty,
        "seed": sampling.seed,
        "audio_seconds": round(clip.seconds, 3),
        "version": __version__,
        "time": datetime.now(UTC).isoformat(timespec="milliseconds"),  # for people: clocks differ between machines
        **run.of_next_caption(),
    }
    if clip.source:
        made["audio"] = dict(clip.source)
    if model.projector_name:
        made["mmproj"] = model.projector_name
    if model.adapter:
        made |= {"lora": model.adapter.name, "lora_identity": model.adapter.identity}
    if prompt.system:
        made["system"] = prompt.system
    if prompt.history:
        made["conversation"] = [turn.question for turn in prompt.history]  # asked before ``prompt``
    if clip.was_cut and clip.source_seconds:
        made["source_seconds"] = round(clip.source_seconds, 3)
    elif clip.was_cut:
        made["cut"] = True  # by how much is not known without decoding all of it
    if clip.channel:
        made["channel"] = clip.channel
    if excerpt.start:
        made["start"] = excerpt.start
    if excerpt.fraction < 1:
        made["fraction"] = excerpt.fraction
    if model.is_tiny:
        made["toy"] = True  # the key's name is older than the model's
    return made
