"""GPUs by number, and the environment variables that show a program only some of them."""

from __future__ import annotations

import os
import re

from musicflamingo_cli.errors import ConfigError

ALL = "all"
VULKAN_VARIABLE = "GGML_VK_VISIBLE_DEVICES"
# What CUDA, HIP and llama.cpp's Vulkan backend read; a backend that is not in use ignores its variable.
_VARIABLES = ("CUDA_VISIBLE_DEVICES", "HIP_VISIBLE_DEVICES", VULKAN_VARIABLE)


def parse_gpus(text: str) -> list[int]:
    """Return `0,2` as [0, 2]. Raises ConfigError."""
    if not re.fullmatch(r"\d{1,3}(,\d{1,3})*", text) or len(set(text.split(","))) != text.count(",") + 1:
        raise ConfigError(
            f"--gpus {text} is neither `all` nor a list of numbers", "for the first and third: --gpus 0,2"
        )
    return [int(part) for part in text.split(",")]


def variables(gpus: str | None) -> dict[str, str]:
    """Return the environment variables that show a child only these GPUs; none where ``gpus`` is None or `all`.

    Numbers count within what such a variable of ours already allows, as the listing of devices does.
    """
    if gpus is None or gpus == ALL:
        return {}
    numbers = parse_gpus(gpus)
    chosen = {}
    for name in _VARIABLES:
        allowed = [part.strip() for part in os.environ.get(name, "").split(",") if part.strip()]
        if allowed and max(numbers) >= len(allowed):
            raise ConfigError(f"{name} shows {len(allowed)} GPUs, --gpus names {gpus}", f"unset {name}, or name fewer")
        chosen[name] = ",".join(allowed[number] if allowed else str(number) for number in numbers)
    return chosen
