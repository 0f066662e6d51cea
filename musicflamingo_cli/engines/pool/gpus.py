"""Which GPUs a pool uses."""

from __future__ import annotations

from musicflamingo_cli.config import Settings
from musicflamingo_cli.errors import ConfigError, ToolMissingError
from musicflamingo_cli.llamacpp import binaries, memory
from musicflamingo_cli.llamacpp.gpus import ALL, VULKAN_VARIABLE, parse_gpus

_MOST_GPUS = 32


def gpus_to_use(settings: Settings) -> list[int]:
    """Return the numbers of the GPUs that the settings name. Raises ConfigError where there are none."""
    if settings.gpus is None:
        return []
    if settings.gpus != ALL:
        return parse_gpus(settings.gpus)
    if not (found := _installed(settings)):
        raise ConfigError("--gpus all: no GPU was found", "leave --gpus out, or see: musicflamingo doctor")
    return found


def _installed(settings: Settings) -> list[int]:
    """All GPUs that llama.cpp uses, else those of the drivers."""
    try:
        command = [str(binaries.find(binaries.SERVER, settings.llama_dir)), "--list-devices"]
    except ToolMissingError:
        return list(range(len(memory.cards_of_drivers())))
    cards = memory.cards(command)
    if any(card.backend.startswith("Vulkan") for card in cards):
        # Its variable takes the driver's numbers, while the listing leaves out integrated GPUs and counts the rest.
        return [number for number in range(_MOST_GPUS) if _is_card(command, number)]
    return list(range(len(cards)))


def _is_card(command: list[str], number: int) -> bool:
    found = memory.cards(command, {VULKAN_VARIABLE: str(number)})
    return bool(found) and not found[0].is_integrated
