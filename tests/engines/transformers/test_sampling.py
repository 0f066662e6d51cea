"""The next token: what the settings allow, how often, and independent of the other rows."""

from __future__ import annotations

from collections import Counter

import pytest
from hypothesis import given
from hypothesis import strategies as st

from musicflamingo_cli.engines.transformers.sampling import RowSampler, next_tokens
from musicflamingo_cli.types import Sampling

pytestmark = pytest.mark.slow  # torch takes seconds to import
LOGITS = [2.0, 1.0, 0.0, -1.0, -6.0]  # probabilities 0.643, 0.237, 0.087, 0.032, 0.0002
PLAIN = Sampling(temperature=1.0, top_p=1.0, repeat_penalty=1.0)


def drawn(sampling: Sampling, count: int = 2000) -> Counter[int]:
    import torch

    rows = [RowSampler(Sampling(sampling.temperature, sampling.top_p, 1.0, seed)) for seed in range(count)]
    return Counter(next_tokens(torch.tensor([LOGITS] * count), rows))


@pytest.mark.parametrize(
    ("sampling", "possible"),
    [
        (Sampling(0.0, 1.0, 1.0), {0}),
        (Sampling(1.0, 0.5, 1.0), {0}),
        (Sampling(1.0, 0.7, 1.0), {0, 1}),
        (Sampling(1.0, 0.95, 1.0), {0, 1, 2}),
        (Sampling(1.0, 1.0, 1.0), {0, 1, 2}),  # min-p 0.05 of the likeliest: 0.032 is just below 0.643 / 20
        (Sampling(3.0, 1.0, 1.0), {0, 1, 2}),  # the temperature comes last
    ],
)
def test_only_the_likeliest_are_drawn(sampling: Sampling, possible: set[int]) -> None:
    assert set(drawn(sampling)) == possible


def test_frequencies_follow_the_probabilities() -> None:
    counts = drawn(PLAIN)
    assert counts[0] / 2000 == pytest.approx(0.665, abs=0.03)
    assert counts[1] / 2000 == pytest.approx(0.245, abs=0.03)


def test_a_higher_temperature_flattens() -> None:
    assert drawn(Sampling(3.0, 1.0, 1.0))[0] < drawn(PLAIN)[0] < drawn(Sampling(0.3, 1.0, 1.0))[0]


def test_repeated_tokens_become_less_likely() -> None:
    import torch

    row = RowSampler(Sampling(0.0, 1.0, 3.0), tokens=[0])
    assert next_tokens(torch.tensor([LOGITS]), [row]) == [1]
    assert row.tokens == [0, 1]
    forgotten = RowSampler(Sampling(0.0, 1.0, 3.0), tokens=[0, *[4] * 64])
    assert next_tokens(torch.tensor([LOGITS]), [forgotten]) == [0]


@given(st.lists(st.integers(0, 50), min_size=2, max_size=5), st.integers(0, 10))
def test_a_row_does_not_depend_on_the_others(seeds: list[int], start: int) -> None:
    import torch

    torch.manual_seed(start)
    steps = [torch.randn(len(seeds), 300) for _ in range(3)]
    together = [RowSampler(Sampling(1.0, 0.9, 1.1, seed)) for seed in seeds]
    for logits in steps:
        next_tokens(logits.clone(), together)
    for index, seed in enumerate(seeds):
        alone = RowSampler(Sampling(1.0, 0.9, 1.1, seed))
        for logits in steps:
            next_tokens(logits[index : index + 1].clone(), [alone])
        assert alone.tokens == together[index].tokens
