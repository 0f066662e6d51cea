"""The real batch and pool over simulated engines, as benchmarks/scale.py runs them for docs/many-machines.md."""

from __future__ import annotations

import importlib
from pathlib import Path
from typing import Any

import pytest

from musicflamingo_cli.engines.pool import member as member_module

scale: Any = importlib.import_module("benchmarks.scale")  # a folder of programs, not a package of ours


@pytest.mark.slow
def test_losses_and_slow_members_cost_little(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(member_module, "PAUSES", (0.1, 0.2))  # a second is to a real clip as this to a simulated one
    given = scale.Simulation(members=10, tracks=30, seconds=0.4, losses=0.02, slow=0.1)
    found = scale.simulate(given, tmp_path)
    assert set(found.done.values()) == {1}
    assert len(found.done) == 300
    assert found.failed == 0
    # At full size it is 0.95 and more (see the table); here the end, where members wait for the last clip, counts more.
    assert found.efficiency > 0.8


@pytest.mark.slow
def test_a_hundred_members_at_once(tmp_path: Path) -> None:
    found = scale.simulate(scale.Simulation(members=100, tracks=10, seconds=1.0), tmp_path)
    assert set(found.done.values()) == {1}
    assert found.efficiency > 0.7
    assert found.cost < 0.05
