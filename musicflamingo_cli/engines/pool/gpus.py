"""Which GPUs a pool uses."""

from __future__ import annotations

from collections.abc import Sequence

from musicflamingo_cli.config import Settings
from musicflamingo_cli.errors import ConfigError, ToolMissingError
from musicflamingo_cli.llamacpp import binaries, memory
from musicflamingo_cli.llamacpp.gpus import ALL, VULKAN_VARIABLE, parse_gpus, variables

_MOST_GPUS = 32


def gpus_to_use(settings: Settings, *, by_drivers: bool = False) -> list[int]:
    """Return the numbers of the GPUs that the settings name. Raises ConfigError where one of them is not there.

    ``by_drivers``: the engine is not llama.cpp, whose build may use other GPUs, or none.
    """
    if settings.gpus is None:
        return []
    chosen = None if settings.gpus == ALL else parse_gpus(settings.gpus)
    command = None if by_drivers else _listing(settings)
    found = list(range(len(memory.cards_of_drivers()))) if command is None else _installed(command, chosen)
    if chosen is None:
        if not found:
            raise ConfigError("--gpus all: no GPU was found", "leave --gpus out, or see: musicflamingo doctor")
        return found
    # Drivers that show nothing may be hidden, but llama.cpp without that GPU would work on the processor.
    if found or command is not None:
        _require(chosen, found)
    return chosen


def _require(chosen: Sequence[int], found: Sequence[int]) -> None:
    """Raise ConfigError for a number that is none of a GPU."""
    for number in chosen:
        if number not in found:
            raise ConfigError(f"--gpus: there is no GPU {number}", "for those that there are: musicflamingo doctor")


def _listing(settings: Settings) -> list[str] | None:
    """The command that lists the GPUs which llama.cpp uses; None where only a wheel of it is installed, or nothing."""
    try:
        return [str(binaries.find(binaries.SERVER, settings.llama_dir)), "--list-devices"]
    except ToolMissingError:
        return None


def _installed(command: list[str], chosen: Sequence[int] | None) -> list[int]:
    """The GPUs that llama.cpp uses. ``chosen``: with Vulkan, these are looked for, integrated or not."""
    cards = memory.cards(command)
    if not any(card.backend.startswith("Vulkan") for card in cards):
        return list(range(len(cards)))
    # Its variable takes the driver's numbers, while the listing leaves out integrated GPUs and counts the rest.
    if chosen is not None:
        return [number for number in chosen if memory.cards(command, variables(str(number)))]
    return [number for number in range(_MOST_GPUS) if _is_card(command, number)]


def vulkan_numbers(settings: Settings, chosen: str) -> str:
    """Return the Vulkan driver's numbers of GPUs that CUDA's or HIP's variable names, for example `0,2`.

    Empty where llama.cpp does not use Vulkan, or where the variable holds no numbers.
    """
    command = _listing(settings)
    if command is None or not any(card.backend.startswith("Vulkan") for card in memory.cards(command)):
        return ""
    found = _installed(command, None)
    numbers = [int(part) for part in chosen.split(",") if part.strip().isdigit()]
    return ",".join(str(found[number]) for number in numbers if number < len(found))


def _is_card(command: list[str], number: int) -> bool:
    found = memory.cards(command, {VULKAN_VARIABLE: str(number)})
    return bool(found) and not found[0].is_integrated
