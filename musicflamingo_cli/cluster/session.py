"""A connection to Ray: a private cluster on this machine, or one that runs already."""

from __future__ import annotations

import contextlib
import os
import secrets
import shutil
import signal
import tempfile
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psutil

from musicflamingo_cli.cluster.plan import LOCAL, ClusterPlan, require_ray
from musicflamingo_cli.errors import ConfigError
from musicflamingo_cli.system.processes import after_our_end
from musicflamingo_cli.system.temporary import is_abandoned, owner

# Short, as the paths of Ray's sockets, which are below it, must be (107 bytes).
_PARENT, _PREFIX, _OWNER = Path("/tmp"), "mf-ray-", "owner"
_OBJECT_STORE = 512 << 20  # bytes, for files that are sent to nodes
# Two helpers of the raylet take a minute to notice that the driver was killed, and the folder stays. A number that has
# been given to another program is not killed.
_LAST_THINGS = """folder=$1; shift
for helper; do case "$(ps -o args= -p "$helper")" in ray::*) kill -KILL "$helper";; esac; done
sleep 3; rm -rf -- "$folder\""""


@contextlib.contextmanager
def session(plan: ClusterPlan) -> Iterator[Any]:
    """Connect to the plan's cluster, or start one; give the module ``ray``, and end all of it afterwards.

    A cluster of ours listens on loopback, with a token, in a private folder. Raises ToolMissingError, ConfigError.
    """
    require_ray()
    os.environ["RAY_USAGE_STATS_ENABLED"] = "0"
    # Ray's list of finished calls, for its dashboard: it grew by 36 MiB in 40,000 tracks (benchmarks/ray_cost.py).
    os.environ.setdefault("RAY_task_events_report_interval_ms", "0")
    with contextlib.ExitStack() as stack:
        options: dict[str, Any] = {"address": plan.address}
        if plan.address == LOCAL:
            folder = stack.enter_context(_private_folder())
            options |= {"_temp_dir": str(folder / "r"), "include_dashboard": False}
            options |= {"object_store_memory": _OBJECT_STORE}
            os.environ["RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER"] = "0"  # odd, but on Linux this keeps it on 127.0.0.1
            os.environ["RAY_AUTH_MODE"], os.environ["RAY_AUTH_TOKEN"] = "token", secrets.token_hex(32)
        elif "RAY_AUTH_TOKEN" in os.environ:
            os.environ.setdefault("RAY_AUTH_MODE", "token")
        stack.enter_context(_connected(options))
        if plan.address == LOCAL:
            stack.enter_context(_ends_with_us(folder))
        import ray

        yield ray


@contextlib.contextmanager
def _connected(options: dict[str, Any]) -> Iterator[None]:
    import ray

    handlers = {number: signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGINT)}
    _keep_stdout_clean(ray)
    try:
        ray.init(log_to_driver=False, logging_level="ERROR", namespace=f"musicflamingo-{os.getpid()}", **options)
    except (ConnectionError, RuntimeError, ValueError) as error:
        first = str(error).strip().splitlines()[0][:300]
        hint = "check its address and version, and set RAY_AUTH_TOKEN to its token"
        raise ConfigError(f"cannot connect to Ray at {options['address']}: {first}", hint) from error
    finally:
        if threading.current_thread() is threading.main_thread():
            for number, handler in handlers.items():  # Ray replaces SIGTERM's
                signal.signal(number, handler)
    try:
        _keep_stdout_clean(ray)
        yield
    finally:
        ray.shutdown()


def _keep_stdout_clean(ray: Any) -> None:
    """Ray prints lines of its raylets to stdout, in spite of log_to_driver; there is no public way to stop it."""
    worker = getattr(getattr(ray, "_private", None), "worker", None)
    if worker is not None and hasattr(worker, "_worker_logs_enabled"):
        worker._worker_logs_enabled = False


@contextlib.contextmanager
def _ends_with_us(folder: Path) -> Iterator[None]:
    """Should we be killed, remove ``folder`` and end the helpers of Ray that would stay."""
    helpers = [str(each.pid) for each in psutil.Process().children(recursive=True) if _is_helper(each)]
    with after_our_end(_LAST_THINGS, str(folder), *helpers):
        yield


def _is_helper(process: psutil.Process) -> bool:
    with contextlib.suppress(psutil.Error):
        return "Agent" in "".join(process.cmdline())
    return False


@contextlib.contextmanager
def _private_folder() -> Iterator[Path]:
    """A folder that only we may enter, for Ray's own in it, which Ray opens to everybody and leaves behind."""
    for old in _PARENT.glob(f"{_PREFIX}*"):
        with contextlib.suppress(OSError):
            if old.stat().st_uid == os.getuid() and is_abandoned((old / _OWNER).read_text()):
                shutil.rmtree(old, ignore_errors=True)
    folder = Path(tempfile.mkdtemp(prefix=_PREFIX, dir=_PARENT))
    (folder / _OWNER).write_text(owner())
    try:
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)
