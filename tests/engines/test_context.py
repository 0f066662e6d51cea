from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from musicflamingo_cli.config import Settings
from musicflamingo_cli.engines.context import Room, tokens_needed
from musicflamingo_cli.errors import TooLongError
from musicflamingo_cli.llamacpp import memory
from musicflamingo_cli.models.resolve import ModelPair
from musicflamingo_cli.types import Clip, Prompt

GB = 10**9
# Music Flamingo Q6_K with its projector: 7.2 GB of files, 56 KiB of KV a token.
MODEL = ModelPair(Path("m.gguf"), Path("p.gguf"), 32_768, False, 56 * 1024, 7_200_000_000)


@pytest.fixture
def free(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """A list whose one value is the free memory in bytes."""
    value = [24 * GB]
    monkeypatch.setattr(memory, "for_llama_cpp", lambda command, layers: memory.Memory(value[0], value[0], "a GPU"))
    return value


@pytest.mark.parametrize(
    ("gigabytes", "at_once", "slots", "lanes"),
    [
        (24, 1000, None, 4),
        (24, 2, None, 2),
        (9, 1000, None, 3),  # 0.73 GB left for 0.23 GB a slot
        (8, 1000, None, 1),
        (2, 1000, None, 1),  # llama.cpp puts some of it elsewhere, or says what is wrong
        (9, 1000, 8, 8),  # whoever says a number gets it
        (24, 3, 8, 3),
    ],
)
def test_as_many_lanes_as_there_is_memory_for(
    free: list[int], gigabytes: int, at_once: int, slots: int | None, lanes: int
) -> None:
    free[0] = gigabytes * GB
    assert Room(["x"], Settings(slots=slots), MODEL, at_once).lanes == lanes


def test_a_cpu_gets_one_slot(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(memory, "for_llama_cpp", lambda command, layers: memory.Memory(99 * GB, 99 * GB, "RAM"))
    assert Room(["x"], Settings(), MODEL, 1000).lanes == 1
    assert Room(["x"], Settings(slots=4), MODEL, 1000).lanes == 4


@pytest.mark.parametrize(
    ("gigabytes", "context", "expected"),
    [
        (24, 1000, (16_384, 4)),  # a quarter of the 15.7 GB left holds 4 x 0.94 GB
        (24, 20_000, (32_768, 4)),
        (80, 1000, (32_768, 4)),
        (9, 1000, (4096, 3)),
        (9, 5000, (8192, 1)),  # longer ones are fewer
        (8, 31_000, (32_768, 1)),
    ],
)
def test_slots_are_as_large_as_is_easy_and_as_many_as_fit(
    free: list[int], gigabytes: int, context: int, expected: tuple[int, int]
) -> None:
    free[0] = gigabytes * GB
    assert Room(["x"], Settings(), MODEL, 1000).for_clip(context) == expected


def test_the_users_context_is_a_slots_context(free: list[int]) -> None:
    assert Room(["x"], Settings(ctx_size=5000), MODEL, 9).for_clip(900) == (5000, 4)


def test_never_more_than_the_models_own_context(free: list[int]) -> None:
    free[0] = 500 * GB
    assert Room(["x"], Settings(), replace(MODEL, context_length=10_000), 1).for_clip(900) == (10_000, 1)


def test_too_long_says_what_to_type() -> None:
    clip = Clip(Path("x"), 16_000 * 1200, 1200.0, False)
    assert tokens_needed(clip, Prompt("p", "x" * 100, 200), Settings(), MODEL) == 30_000 + 100 + 200 + 128
    with pytest.raises(TooLongError) as caught:
        tokens_needed(clip, Prompt("p", "x", 200), Settings(ctx_size=4096), MODEL)
    assert "--ctx-size" in caught.value.hint


def test_half_as_many_after_the_reckoning_proved_wrong(free: list[int]) -> None:
    room = Room(["x"], Settings(), MODEL, 1000)
    room.halve()
    assert (room.lanes, room.for_clip(3000)) == (2, (4096, 2))
    room.halve()
    room.halve()
    assert room.for_clip(5000) == (8192, 1)
