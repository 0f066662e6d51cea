"""What the worker computes, counted: encoder calls, and tokens that the language model processes."""

from __future__ import annotations

import argparse
import multiprocessing
import threading
from collections.abc import Sequence
from typing import Any

import pytest

from musicflamingo_cli.engines.messages import ClipRequest, Notice, Reply
from musicflamingo_cli.engines.transformers.model import Model
from musicflamingo_cli.engines.transformers.worker import Worker
from musicflamingo_cli.models.model import Checkpoint
from musicflamingo_cli.types import Prompt, Sampling, Turn
from tests.conftest import MakeWav

pytestmark = pytest.mark.slow
PROMPTS = [Prompt(preset=f"p{index}", text=f"What is {index}?", max_tokens=4) for index in range(5)]


class Counted:
    """A worker in a thread of this process, and what its model was asked to do."""

    def __init__(self, checkpoint: Checkpoint) -> None:
        options = argparse.Namespace(
            folder=str(checkpoint.folder), device="cpu", attention="sdpa", quantize="none", threads=1, lora=None
        )
        self.model = Model(options)
        self.tokens = 0
        self.notices: list[str] = []
        language_model = self.model.net.model.language_model
        forward = language_model.forward

        def counting(**inputs: Any) -> Any:
            self.tokens += inputs["inputs_embeds"].shape[0] * inputs["inputs_embeds"].shape[1]
            return forward(**inputs)

        language_model.forward = counting
        self.ours, theirs = multiprocessing.Pipe()
        threading.Thread(target=Worker(self.model, theirs, slots=4).run, daemon=True).start()

    def ask_together(self, clips: Sequence[Sequence[str]], prompts: Sequence[Prompt]) -> list[Reply]:
        """The replies to the same prompts about several clips, each in a slot of its own."""
        for slot, paths in enumerate(clips):
            self.ours.send(ClipRequest(slot, 0, paths, prompts, Sampling(temperature=0.0, repeat_penalty=1.0)))
        replies: list[Reply] = []
        while len(replies) < len(clips) * len(prompts):
            message = self.ours.recv()
            if isinstance(message, Notice):
                self.notices.append(message.text)
            elif isinstance(message, Reply):  # and not Begun
                replies.append(message)
        return replies

    def ask(self, paths: Sequence[str], prompts: Sequence[Prompt]) -> list[Reply]:
        return self.ask_together([paths], prompts)


@pytest.fixture
def counted(checkpoints: dict[str, Checkpoint]) -> Counted:
    return Counted(checkpoints["random 2601"])


def test_five_questions_take_one_encoder_call(counted: Counted, make_wav: MakeWav) -> None:
    replies = counted.ask([str(make_wav(seconds=20.0))], PROMPTS)
    assert [reply.error for reply in replies] == [""] * 5
    assert counted.model.encoder_calls == 1
    audio = replies[0].audio_tokens
    assert audio == 500
    assert audio < counted.tokens < 2 * audio  # not five times


def test_the_next_turn_hears_nothing_again(counted: Counted, make_wav: MakeWav) -> None:
    path = str(make_wav(seconds=20.0))
    (first,) = counted.ask([path], PROMPTS[:1])
    before = counted.tokens
    (second,) = counted.ask([path], [Prompt("p1", "And?", 4, history=(Turn(PROMPTS[0].text, first.text),))])
    assert counted.model.encoder_calls == 1
    assert second.prefill_seconds == 0.0
    assert counted.tokens - before < 100


def test_another_clip_under_the_same_name_is_heard(counted: Counted, make_wav: MakeWav) -> None:
    path = make_wav("clip.wav", seconds=2.0)
    counted.ask([str(path)], PROMPTS[:1])
    make_wav("clip.wav", seconds=3.0)
    (reply,) = counted.ask([str(path)], PROMPTS[:1])
    assert counted.model.encoder_calls == 2
    assert reply.audio_tokens == 75


def test_tracks_that_do_not_fit_together_are_answered_apart(counted: Counted, make_wav: MakeWav) -> None:
    import torch

    prefill, sizes = counted.model.prefill, []

    def small(rows: Sequence[Any], audio_tokens: Sequence[int]) -> Any:
        sizes.append(len(rows))
        if len(rows) > 1:
            raise torch.OutOfMemoryError("out of memory")
        return prefill(rows, audio_tokens)

    counted.model.prefill = small  # type: ignore[method-assign]
    paths = [make_wav(f"{n}.wav", seconds=30.0 * (1 + n)) for n in range(3)]
    replies = counted.ask_together([[str(path)] for path in paths], PROMPTS[:2])
    assert [reply.error for reply in replies] == [""] * 6
    assert max(sizes) > 1
    assert sorted({reply.audio_tokens for reply in replies}) == [750, 1500, 2250]
    assert [text for text in counted.notices if "tracks at once; trying 1" in text]


def test_a_clip_that_cannot_be_read_fails_alone(counted: Counted, make_wav: MakeWav) -> None:
    paths = [[str(make_wav(seconds=1.0))], ["missing.wav"], [str(make_wav("b.wav", seconds=1.0))]]
    replies = counted.ask_together(paths, PROMPTS[:2])
    assert sorted((reply.slot, bool(reply.error)) for reply in replies) == [
        (0, False),
        (0, False),
        (1, True),
        (1, True),
        (2, False),
        (2, False),
    ]


def test_system_prompts_share_the_encoder_call(counted: Counted, make_wav: MakeWav) -> None:
    prompts = [PROMPTS[0], Prompt("steered", PROMPTS[0].text, 4, system="Be brief.")]
    replies = counted.ask([str(make_wav(seconds=2.0))], prompts)
    assert [reply.error for reply in replies] == ["", ""]
    assert counted.model.encoder_calls == 1
