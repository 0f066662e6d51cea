"""What connecting to Ray leaves as it was; test_cluster.py uses the real one."""

from __future__ import annotations

import signal
import subprocess
import sys
import time
import types
from pathlib import Path

import pytest

from musicflamingo_cli.cluster import session as session_module
from musicflamingo_cli.cluster.plan import ClusterPlan
from musicflamingo_cli.cluster.session import session


@pytest.fixture
def ray(monkeypatch: pytest.MonkeyPatch) -> types.ModuleType:
    """Ray as far as its start is concerned: it replaces the handler of SIGTERM."""
    double = types.ModuleType("ray")
    double.init = lambda **options: signal.signal(signal.SIGTERM, signal.SIG_IGN)  # type: ignore[attr-defined]
    double.shutdown = lambda: None  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "ray", double)
    monkeypatch.setattr(session_module, "require_ray", lambda: None)
    for name in ("RAY_AUTH_MODE", "RAY_AUTH_TOKEN", "RAY_USAGE_STATS_ENABLED"):
        monkeypatch.setenv(name, "")
    for name in ("RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER", "RAY_task_events_report_interval_ms"):
        monkeypatch.setenv(name, "0")
    return double


def test_the_handlers_of_signals_stay(ray: types.ModuleType) -> None:
    def ours(*_: object) -> None: ...

    before = signal.signal(signal.SIGTERM, ours)
    try:
        with session(ClusterPlan()) as given:
            assert given is ray
            assert signal.getsignal(signal.SIGTERM) is ours
    finally:
        signal.signal(signal.SIGTERM, before)


def test_a_killed_driver_leaves_no_folder_and_no_helper(tmp_path: Path) -> None:
    folder = tmp_path / "private"
    folder.mkdir()
    code = "import sys; sys.stdin.read()"
    title = ["-c", 'exec -a ray::DashboardAgent "$0" -c "$1"', sys.executable, code]
    helper = subprocess.Popen(["/bin/bash", *title], stdin=subprocess.PIPE)
    other = subprocess.Popen([sys.executable, "-c", code], stdin=subprocess.PIPE)
    try:
        code = (
            "import os, sys; from musicflamingo_cli.cluster.session import _LAST_THINGS\n"
            "from musicflamingo_cli.system.processes import after_our_end\n"
            "with after_our_end(_LAST_THINGS, *sys.argv[1:]): os.kill(os.getpid(), 9)"
        )
        driver = [sys.executable, "-c", code, str(folder), str(helper.pid), str(other.pid)]
        assert subprocess.run(driver, timeout=60).returncode == -signal.SIGKILL
        deadline = time.monotonic() + 30
        while folder.exists() and time.monotonic() < deadline:
            time.sleep(0.1)
        assert helper.wait(10) == -signal.SIGKILL
        assert other.poll() is None, "a number that another program got is not killed"
        assert not folder.exists()
    finally:
        for process in (helper, other):
            process.kill()
            process.wait()
