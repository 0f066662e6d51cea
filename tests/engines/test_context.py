from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from musicflamingo_cli.config import Settings
from musicflamingo_cli.engines.context import SlotBudget, tokens_needed
from musicflamingo_cli.errors import TooLongError
from musicflamingo_cli.llamacpp import memory
from musicflamingo_cli.models.model import ModelPair
from musicflamingo_cli.types import Clip, Prompt, Turn

GB = 10**9
# Music Flamingo Q6_K with its projector: 7.2 GB of files, 56 KiB of KV a token.
MODEL = ModelPair(
    language_model=Path("m.gguf"),
    projector=Path("p.gguf"),
    context_length=32_768,
    is_tiny=False,
    kv_bytes_per_token=56 * 1024,
    size=7_200_000_000,
)


@pytest.fixture
def free(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Return a list whose only value is the free memory in bytes."""
    value = [24 * GB]
    monkeypatch.setattr(
        memory, "for_llama_cpp", lambda command, layers, gpus: memory.Memory(value[0], value[0], "a GPU")
    )
    return value


@pytest.mark.parametrize(
    ("gigabytes", "at_once", "wanted", "slots"),
    [
        (24, 1000, None, 4),
        (24, 2, None, 2),
        (9, 1000, None, 3),  # 0.73 GB left for 0.23 GB a slot
        (8, 1000, None, 1),
        (2, 1000, None, 1),  # llama.cpp puts a part elsewhere, or reports what is wrong
        (9, 1000, 8, 8),  # a number that the user sets is used as it is
        (24, 3, 8, 3),
    ],
)
def test_slots_fit_into_memory(free: list[int], gigabytes: int, at_once: int, wanted: int | None, slots: int) -> None:
    free[0] = gigabytes * GB
    assert SlotBudget(["x"], Settings(slots=wanted), MODEL, at_once).slots == slots


def test_a_cpu_gets_one_slot(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(memory, "for_llama_cpp", lambda command, layers, gpus: memory.Memory(99 * GB, 99 * GB, "RAM"))
    assert SlotBudget(["x"], Settings(), MODEL, 1000).slots == 1
    assert SlotBudget(["x"], Settings(slots=4), MODEL, 1000).slots == 4


@pytest.mark.parametrize(
    ("gigabytes", "context", "expected"),
    [
        (24, 1000, (16_384, 4)),  # a quarter of the 15.7 GB left holds 4 x 0.94 GB
        (24, 20_000, (32_768, 4)),
        (80, 1000, (32_768, 4)),
        (9, 1000, (4096, 3)),
        (9, 5000, (8192, 1)),  # larger slots are fewer
        (8, 31_000, (32_768, 1)),
    ],
)
def test_slots_grow_with_free_memory(free: list[int], gigabytes: int, context: int, expected: tuple[int, int]) -> None:
    free[0] = gigabytes * GB
    assert SlotBudget(["x"], Settings(), MODEL, 1000).size_for(context) == expected


def test_ctx_size_is_the_size_of_each_slot(free: list[int]) -> None:
    assert SlotBudget(["x"], Settings(ctx_size=5000), MODEL, 9).size_for(900) == (5000, 4)


def test_a_slot_is_never_larger_than_the_models_context(free: list[int]) -> None:
    free[0] = 500 * GB
    assert SlotBudget(["x"], Settings(), replace(MODEL, context_length=10_000), 1).size_for(900) == (10_000, 1)


def test_a_too_long_clip_gives_a_hint() -> None:
    clip = Clip(path=Path("x"), samples=16_000 * 1200, source_seconds=1200.0, was_cut=False)
    assert (
        tokens_needed(clip.padded_tokens, clip, Prompt(preset="p", text="x" * 100, max_tokens=200), Settings(), MODEL)
        == 30_000 + 100 + 200 + 128
    )
    with pytest.raises(TooLongError) as caught:
        tokens_needed(
            clip.padded_tokens, clip, Prompt(preset="p", text="x", max_tokens=200), Settings(ctx_size=4096), MODEL
        )
    assert "--ctx-size" in caught.value.hint


def test_a_conversation_counts_the_tokens_of_its_answers() -> None:
    clip = Clip(path=Path("x"), samples=16_000 * 1200, source_seconds=1200.0, was_cut=False)

    def needed(answer: str, tokens: int | None, turns: int = 1, room: int = 0) -> int:
        history = (Turn("Which key?", answer, tokens),) * turns
        prompt = Prompt(preset="p", text="x" * 100, max_tokens=500, history=history, room=room)
        return tokens_needed(clip.padded_tokens, clip, prompt, Settings(), MODEL)

    once = 30_000 + 100 + 500 + 128 + len("Which key?") + 32
    assert needed("y" * 1500, None) == once + 1500  # a byte may be a token
    assert needed("y" * 1500, 400) == once + 400
    assert needed("\ufffd" * 400, 400) == once + 1600  # what was no text is more tokens when it is read again
    assert needed("y" * 1500, 400, room=2500) == 32_500
    assert needed("y" * 1500, 400, room=4096) == 32_768  # never more than the model takes
    with pytest.raises(TooLongError, match="the conversation and the answer need") as caught:
        needed("y" * 1500, 400, turns=5)
    assert "/forget" in caught.value.hint


def test_shrink_halves_the_slots(free: list[int]) -> None:
    budget = SlotBudget(["x"], Settings(), MODEL, 1000)
    budget.shrink()
    assert (budget.slots, budget.size_for(3000)) == (2, (4096, 2))
    budget.shrink()
    budget.shrink()
    assert budget.size_for(5000) == (8192, 1)
