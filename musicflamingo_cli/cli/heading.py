"""What the head of the live view says of a run: the engine, the model, the device and its free memory."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import TYPE_CHECKING

from musicflamingo_cli.captioning.captioner import Captioner
from musicflamingo_cli.cli.batch_view import Heading
from musicflamingo_cli.config import Settings
from musicflamingo_cli.llamacpp import memory
from musicflamingo_cli.models.model import RemoteModel

if TYPE_CHECKING:  # Ray is an extra
    from musicflamingo_cli.cluster.captioner import ClusterCaptioner

_GB = 1e9


def heading_of(captioner: Captioner | ClusterCaptioner, settings: Settings) -> Heading:
    """Return the heading of a run with an open captioner."""
    if isinstance(captioner, Captioner):
        device: Callable[[], str] = str if isinstance(captioner.model, RemoteModel) else _device_of(settings)
    else:
        device = partial(_actors, captioner)
    return Heading(
        engine=captioner.engine_name,
        model=captioner.model.name,
        slots=lambda: captioner.slots,
        device=device,
    )


def _actors(captioner: ClusterCaptioner) -> str:
    return f"Ray, {len(captioner.members)} actors"


def _device_of(settings: Settings) -> Callable[[], str]:
    """Return what asks for the device; llama.cpp's program is started once only, to learn whether it uses a GPU."""
    known: memory.Memory | None = None

    def device() -> str:
        nonlocal known
        if known is None:
            known = memory.available(settings.llama_dir, settings.gpu_layers, settings.gpus)
        elif known.is_gpu:
            known = memory.of_drivers(settings.gpus)
        else:
            known = memory.ram()
        name = known.where if known.is_gpu else "CPU"
        return f"{name}, {known.free / _GB:.1f} of {known.total / _GB:.1f} GB free"

    return device
