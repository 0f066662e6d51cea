"""Tokens are drawn as the settings say, and by each clip's own random stream."""

from __future__ import annotations

from collections import Counter
from typing import Any

import numpy as np
import pytest

from musicflamingo_cli.config import GenerationSettings
from musicflamingo_cli.listening.sampling import ClipSampler

pytestmark = pytest.mark.slow  # torch takes seconds to import


def drawn(settings: GenerationSettings, logits: Any, times: int) -> Counter[int]:
    import torch

    sampler = ClipSampler(settings, 1)
    given = torch.tensor(logits).expand(1, 4, -1)
    return Counter(token for _ in range(times) for token in sampler.next_tokens(given).flatten().tolist())


def test_tokens_are_drawn_by_their_probability() -> None:
    logits = np.log([0.5, 0.3, 0.2]).tolist()
    counts = drawn(GenerationSettings(), logits, 2000)
    assert [counts[token] / 8000 for token in range(3)] == pytest.approx([0.5, 0.3, 0.2], abs=0.02)
    sharper = drawn(GenerationSettings(temperature=0.5), logits, 2000)  # squares: 25, 9 and 4 of 38
    assert [sharper[token] / 8000 for token in range(3)] == pytest.approx([25 / 38, 9 / 38, 4 / 38], abs=0.02)


def test_top_k_and_temperature_limit_the_choice() -> None:
    logits = [0.0, 3.0, 2.0, 1.0]
    assert set(drawn(GenerationSettings(top_k=2), logits, 200)) == {1, 2}
    assert set(drawn(GenerationSettings(top_k=0, temperature=5.0), logits, 200)) == {0, 1, 2, 3}
    assert set(drawn(GenerationSettings(temperature=0.0), logits, 10)) == {1}


def test_each_clip_has_a_stream_of_its_own() -> None:
    import torch

    one, three = ClipSampler(GenerationSettings(), 1), ClipSampler(GenerationSettings(), 3)
    for _ in range(20):
        logits = torch.randn(3, 4, 50)
        logits[1] = logits[0]
        alone, together = one.next_tokens(logits[:1]), three.next_tokens(logits)
        assert torch.equal(together[0], alone[0])
        assert torch.equal(together[1], alone[0])
