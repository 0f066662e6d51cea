"""Attention over a shared prefix is ordinary attention, whatever the shapes are."""

from __future__ import annotations

from types import SimpleNamespace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from musicflamingo_cli.engines.transformers.attention import Prefix, attend

pytestmark = pytest.mark.slow  # torch takes seconds to import


@settings(max_examples=60, deadline=None)
@given(
    lengths=st.lists(st.integers(0, 9), min_size=1, max_size=3),  # of the prefixes
    rows=st.integers(1, 3),  # of each prefix
    heads=st.sampled_from([(4, 4), (4, 2), (6, 1)]),
    new=st.integers(1, 4),
    old=st.integers(0, 5),
    padding=st.integers(0, 2),
    seed=st.integers(0, 100),
)
def test_it_equals_attention_over_copies(
    lengths: list[int], rows: int, heads: tuple[int, int], new: int, old: int, padding: int, seed: int
) -> None:
    import torch
    from torch.nn.functional import scaled_dot_product_attention

    torch.manual_seed(seed)
    query_heads, key_heads = heads
    count, own, size = len(lengths) * rows, new + old, 8
    padding = min(padding, own - 1)
    distinct = [Prefix([(torch.randn(key_heads, n, size), torch.randn(key_heads, n, size))], n) for n in lengths]
    prefixes = [prefix for prefix in distinct for _ in range(rows)]
    query = torch.randn(count, query_heads, new, size)
    key, value = torch.randn(count, key_heads, own, size), torch.randn(count, key_heads, own, size)
    mask = torch.ones(own, own).tril()[-new:].bool()[None, None].repeat(count, 1, 1, 1)
    mask[0, :, :, :padding] = False

    found, _ = attend(SimpleNamespace(layer_idx=0), query, key, value, mask, scaling=size**-0.5, prefixes=prefixes)
    assert not found.isnan().any()
    for row, prefix in enumerate(prefixes):
        keys, values = prefix.layers[0]
        sees = torch.cat([torch.ones(new, prefix.length).bool(), mask[row, 0]], dim=1)
        expected = scaled_dot_product_attention(
            query[row],
            torch.cat([keys, key[row]], dim=1).repeat_interleave(query_heads // key_heads, dim=0),
            torch.cat([values, value[row]], dim=1).repeat_interleave(query_heads // key_heads, dim=0),
            attn_mask=sees,
        )
        looks = sees.any(-1)  # padding looks at nothing where there is no prefix; nothing reads it
        torch.testing.assert_close(found[row].transpose(0, 1)[:, looks], expected[:, looks], atol=1e-5, rtol=1e-5)
