"""`models pull` against a fake hub on loopback, in a separate process."""

from __future__ import annotations

import os
import resource
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace

import pytest
from filelock import FileLock

from musicflamingo_cli.errors import ModelError
from musicflamingo_cli.models import hub as hub_module
from musicflamingo_cli.models.hub import HubFile, fetch
from musicflamingo_cli.models.pull import find
from tests.fakes.hub import Hub
from tiny_flamingo import random_pair

PLAIN, I1 = "mradermacher/music-flamingo-hf-GGUF", "mradermacher/music-flamingo-hf-i1-GGUF"
Q6, MMPROJ = "music-flamingo-hf.Q6_K.gguf", "music-flamingo-hf.mmproj-f16.gguf"
Pull = Callable[..., subprocess.CompletedProcess[str]]


@pytest.fixture
def hub(random_models: Path) -> Hub:
    """Return a hub with the published repositories: the random pair's bytes under the real names."""
    model = (random_models / random_pair.LANGUAGE_MODEL_NAME).read_bytes()
    mmproj = (random_models / random_pair.PROJECTOR_NAME).read_bytes()
    plain = {Q6: model, "music-flamingo-hf.Q8_0.gguf": model + b"8", MMPROJ: mmproj, "README.md": b"words"}
    i1 = {"music-flamingo-hf.i1-IQ3_M.gguf": model, "music-flamingo-hf.imatrix.gguf": b"GGUF matrix"}
    other = {"theirs-Q6_K.gguf": model, "mmproj-theirs-bf16.gguf": b"?", "mmproj-theirs-F16.gguf": mmproj}
    return Hub({PLAIN: plain, I1: i1, "some/other-GGUF": other})


@pytest.fixture
def models(tmp_path: Path) -> Path:
    return tmp_path / "models"


def environment(hub: Hub, tmp_path: Path, **more: str) -> dict[str, str]:
    kept = {name: value for name, value in os.environ.items() if not name.startswith("HF_")}
    return {**kept, **hub.environment(tmp_path / "hf"), "MUSICFLAMINGO_MODELS_DIR": str(tmp_path / "models"), **more}


@pytest.fixture
def pull(hub: Hub, tmp_path: Path) -> Pull:
    def run(*arguments: str, **more: str) -> subprocess.CompletedProcess[str]:
        command = [
            sys.executable,
            "-m",
            "musicflamingo_cli",
            "models",
            *(arguments if "pull" in arguments else ("pull", *arguments)),
        ]
        return subprocess.run(
            command, env=environment(hub, tmp_path, **more), capture_output=True, text=True, timeout=60
        )

    return run


def visible(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir() if not path.name.startswith("."))


def test_model_and_projector_are_fetched_once(hub: Hub, pull: Pull, models: Path) -> None:
    with hub:
        done = pull("Q6_K")
        assert done.returncode == 0, done.stderr
        assert done.stdout.split() == [str(models / Q6), str(models / MMPROJ)]
        assert (models / Q6).read_bytes() == hub.repositories[PLAIN][Q6]
        assert len(hub.downloads) == 2
        second = pull("Q6_K")
    assert second.stdout == done.stdout
    assert "verifying its checksum" in second.stderr
    assert len(hub.downloads) == 2
    assert visible(models) == sorted([Q6, MMPROJ])


@pytest.mark.slow
def test_an_interrupted_download_is_resumed(hub: Hub, pull: Pull, models: Path) -> None:
    hub.repositories[PLAIN][MMPROJ] += bytes(40_000_000)
    with hub:
        hub.cut_after = 12_000_000  # more than the client writes at once (10 MiB)
        done = pull("Q6_K")
    assert done.returncode == 0, done.stderr
    assert (models / MMPROJ).read_bytes() == hub.repositories[PLAIN][MMPROJ]
    ranges = [request.split()[-1] for request in hub.downloads if "bytes=" in request]
    assert ranges == [f"bytes={n * 10 * 1024 * 1024}-" for n in (1, 2, 3)]


def test_a_killed_pull_leaves_no_model_and_is_resumed(hub: Hub, pull: Pull, models: Path, tmp_path: Path) -> None:
    hub.repositories[PLAIN][MMPROJ] += bytes(30_000_000)  # large enough to be killed in
    whole = len(hub.repositories[PLAIN][MMPROJ])
    hub.cut_after = 12_000_000
    with hub:
        command = [sys.executable, "-m", "musicflamingo_cli", "models", "pull", "Q6_K"]
        child = subprocess.Popen(command, env=environment(hub, tmp_path), stderr=subprocess.DEVNULL)
        deadline = time.monotonic() + 30
        while not any(path.stat().st_size >= 10_000_000 for path in models.glob(".*.part")):
            assert time.monotonic() < deadline
            time.sleep(0.01)
        child.send_signal(signal.SIGKILL)
        child.wait()
        assert visible(models) == []
        assert not list(models.rglob("*.gguf"))
        listed = len(hub.downloads)
        hub.cut_after = 0
        assert pull("Q6_K").returncode == 0
    assert (models / MMPROJ).stat().st_size == whole
    first = hub.downloads[listed]
    assert int(first.rpartition("bytes=")[2].rstrip("-")) >= 10_000_000, "it started over"


def test_a_download_with_a_wrong_byte_is_deleted(hub: Hub, pull: Pull, models: Path) -> None:
    with hub:
        hub.flip = True
        done = pull("Q6_K")
        assert done.returncode == 4
        assert "wrong bytes" in done.stderr
        assert [path.name for path in models.iterdir() if "gguf" in path.name] == []
        hub.flip = False
        assert pull("Q6_K").returncode == 0


def test_spellings_of_quants_and_a_projector_elsewhere(hub: Hub, pull: Pull, models: Path) -> None:
    with hub:
        assert pull("IQ3_M", "--imatrix").returncode == 0
        assert pull("i1-IQ3_M").returncode == 0
        assert pull("some/other-GGUF:q6_k").returncode == 0
    assert visible(models) == [
        "music-flamingo-hf.i1-IQ3_M.gguf",
        "music-flamingo-hf.imatrix.gguf",
        MMPROJ,
        "some--other-GGUF",
    ]
    assert visible(models / "some--other-GGUF") == ["mmproj-theirs-F16.gguf", "theirs-Q6_K.gguf"]


def test_a_revision_is_that_of_the_models_repository(monkeypatch: pytest.MonkeyPatch) -> None:
    """The projector of another one is taken as it is now; what is wrong there is said."""
    is_busy = False

    def list_files(repository: str, revision: str) -> list[HubFile]:
        if repository == PLAIN and (is_busy or revision != "main"):
            raise ModelError("the hub is busy" if is_busy else f"no revision {revision} of {repository}", "later")
        names = {PLAIN: [Q6, MMPROJ], I1: ["music-flamingo-hf.i1-IQ3_M.gguf"]}.get(repository, [])
        return [HubFile(repository, revision, name, 1, "") for name in names]

    monkeypatch.setattr(hub_module, "list_files", list_files)
    order = find("i1-IQ3_M", Path(), None, "abc", imatrix=False)
    assert [(file.name, file.revision) for file in order.files] == [
        ("music-flamingo-hf.i1-IQ3_M.gguf", "abc"),
        (MMPROJ, "main"),
    ]
    is_busy = True
    with pytest.raises(ModelError, match="the hub is busy"):
        find("i1-IQ3_M", Path(), None, "abc", imatrix=False)


@pytest.mark.parametrize(
    ("arguments", "message", "hint"),
    [
        (["Q5_K_M"], f"{PLAIN} has no Q5_K_M; it has Q6_K, Q8_0", f"pull {PLAIN}:Q"),
        (["some/other-GGUF:Q8_0"], "it has Q6_K", "models pull some/other-GGUF:Q6_K"),
        (["no/where:Q6_K"], "the hub has no no/where", "models list"),
        (["Q6_K", "--source", "no/where"], "the hub has no no/where", "models list"),
        (["Q6_K", "--revision", "gone"], "no revision gone", "--revision"),
        (["some/other-GGUF:Q6_K", "--imatrix"], "no imatrix", "--imatrix"),
    ],
)
def test_a_missing_file_is_reported_with_a_hint(
    hub: Hub, pull: Pull, arguments: list[str], message: str, hint: str
) -> None:
    with hub:
        done = pull(*arguments)
    assert done.returncode == 4
    assert message in done.stderr
    assert hint in done.stderr
    assert "Traceback" not in done.stderr


def test_a_name_without_a_quant_is_a_usage_error(hub: Hub, pull: Pull) -> None:
    with hub:
        done = pull("some/other-GGUF")
        twice = pull("some/other-GGUF:Q6_K", "--source", PLAIN)
    assert done.returncode == twice.returncode == 2
    assert "some/other-GGUF:Q6_K" in done.stderr
    assert "leave --source out" in twice.stderr


def test_a_token_is_sent_to_the_hub_but_not_to_its_storage(hub: Hub, pull: Pull) -> None:
    hub.token = "hf_secret"
    with hub:
        refused = pull("Q6_K")
        hub.gated = True
        gated = pull("Q6_K")
        taken = pull("Q6_K", HF_TOKEN="hf_secret")
    assert refused.returncode == gated.returncode == 4
    assert "HF_TOKEN" in refused.stderr
    assert "gated" in gated.stderr
    assert taken.returncode == 0, taken.stderr
    assert not hub.storage_saw_token


def test_a_busy_hub_is_retried(hub: Hub, pull: Pull) -> None:
    hub.busy = 1
    with hub:
        done = pull("Q6_K")
    assert done.returncode == 0, done.stderr


def test_offline_uses_the_hubs_cache(hub: Hub, pull: Pull, models: Path, tmp_path: Path) -> None:
    nothing = pull("Q6_K", HF_HUB_OFFLINE="1", HF_ENDPOINT="http://127.0.0.1:9")
    assert nothing.returncode == 4
    assert "HF_HUB_OFFLINE" in nothing.stderr
    with hub:  # filled by huggingface_hub itself
        code = f"from huggingface_hub import hf_hub_download as get\nfor name in {[Q6, MMPROJ]}: get({PLAIN!r}, name)"
        env = environment(hub, tmp_path)
        subprocess.run([sys.executable, "-c", code], env=env, check=True, capture_output=True)
        fetched = len(hub.downloads)
        assert pull("Q6_K").returncode == 0  # online, but from the cache
        assert len(hub.downloads) == fetched
    for name in (Q6, MMPROJ):
        (models / name).unlink()
    offline = pull("Q6_K", HF_HUB_OFFLINE="1", HF_ENDPOINT="http://127.0.0.1:9")
    assert offline.returncode == 0, offline.stderr
    assert (models / Q6).read_bytes() == hub.repositories[PLAIN][Q6]


def test_an_unreachable_hub_is_an_error_without_traceback(hub: Hub, pull: Pull) -> None:
    with hub:
        pass  # its port is known, but nobody listens any more
    done = pull("Q6_K")
    assert done.returncode == 4
    assert "cannot be reached" in done.stderr
    assert "Traceback" not in done.stderr


def test_another_file_of_the_same_name_is_kept(hub: Hub, pull: Pull, models: Path) -> None:
    models.mkdir()
    (models / Q6).write_bytes(b"mine")
    with hub:
        done = pull("Q6_K")
    assert done.returncode == 4
    assert "was not changed" in done.stderr
    assert (models / Q6).read_bytes() == b"mine"


def test_an_existing_file_is_verified(hub: Hub, pull: Pull, models: Path) -> None:
    with hub:
        pull("Q6_K")
        data = bytearray((models / Q6).read_bytes())
        data[-1] ^= 1
        (models / Q6).write_bytes(data)
        done = pull("Q6_K")
    assert done.returncode == 4
    assert "differs from the hub's file" in done.stderr


def test_a_dangling_link_into_a_cache_is_replaced(hub: Hub, pull: Pull, models: Path) -> None:
    models.mkdir()
    (models / Q6).symlink_to(models / "gone")
    with hub:
        assert pull("Q6_K").returncode == 0
    assert (models / Q6).read_bytes() == hub.repositories[PLAIN][Q6]


def test_a_second_pull_waits_with_a_message(hub: Hub, models: Path, tmp_path: Path) -> None:
    models.mkdir()
    lock = FileLock(models / ".pull.lock", thread_local=False)
    command = [sys.executable, "-B", "-m", "musicflamingo_cli", "models", "pull", "Q6_K"]
    with (
        hub,
        lock,
        subprocess.Popen(command, env=environment(hub, tmp_path), stderr=subprocess.PIPE, text=True) as second,
    ):
        release_later = threading.Timer(60, lock.release)  # ends the test if the second pull waits silently
        release_later.start()
        assert second.stderr
        assert any("another pull" in line for line in second.stderr)
        release_later.cancel()
        lock.release()
        second.communicate(timeout=60)
    assert second.returncode == 0


def test_a_full_disk_keeps_the_partial_download(hub: Hub, models: Path, tmp_path: Path) -> None:
    limit = 100_000  # bytes: a write beyond fails as on a full disk

    def fill() -> None:
        resource.setrlimit(resource.RLIMIT_FSIZE, (limit, limit))

    with hub:
        command = [sys.executable, "-B", "-m", "musicflamingo_cli", "models", "pull", "Q6_K"]
        env = environment(hub, tmp_path)
        done = subprocess.run(command, env=env, capture_output=True, text=True, timeout=60, preexec_fn=fill)
    assert done.returncode == 4, done.stderr
    assert "cannot write" in done.stderr
    assert "Traceback" not in done.stderr
    assert visible(models) == []
    (partial,) = models.glob(".*.part")
    assert partial.stat().st_size > 0


def test_too_small_a_disk_is_an_error_before_any_download(
    hub: Hub, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import shutil

    from musicflamingo_cli.errors import ModelError
    from musicflamingo_cli.models.hub import HubFile, require_space

    files = [HubFile(repository=PLAIN, revision="main", name=Q6, size=6_000_000_000, checksum="0" * 64)]
    usage = shutil.disk_usage(tmp_path)
    monkeypatch.setattr(shutil, "disk_usage", lambda path: usage._replace(free=2_000_000_000))
    with pytest.raises(ModelError, match=r"6\.3 GB are needed in .* 2\.0 GB are free"):
        require_space(files, tmp_path / "not" / "there" / "yet")


def test_auto_reports_its_choice(hub: Hub, pull: Pull) -> None:
    with hub:
        done = pull("auto")
    assert "GB are free" in done.stderr
    assert done.returncode == 0 or "has no" in done.stderr  # the fake hub may lack the quant that fits this machine


def test_a_damaged_file_of_the_cache_is_not_linked(hub: Hub, pull: Pull, models: Path, tmp_path: Path) -> None:
    with hub:
        code = f"from huggingface_hub import hf_hub_download as get\nfor name in {[Q6, MMPROJ]}: get({PLAIN!r}, name)"
        subprocess.run([sys.executable, "-c", code], env=environment(hub, tmp_path), check=True, capture_output=True)
        for blob in (tmp_path / "hf").rglob("blobs/*"):
            data = blob.read_bytes()
            blob.write_bytes(data[:-1] + bytes([data[-1] ^ 1]))
        done = pull("Q6_K")
    assert done.returncode == 0, done.stderr
    assert "damaged" in done.stderr
    assert (models / Q6).read_bytes() == hub.repositories[PLAIN][Q6]


@pytest.mark.parametrize("location", ["http://hub.example/file", "http://storage.example/file"])
def test_a_redirect_from_https_to_http_is_refused(
    location: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[str] = []
    monkeypatch.setattr("huggingface_hub.hf_hub_url", lambda *_, **__: "https://hub.example/file")
    monkeypatch.setattr("huggingface_hub.get_hf_file_metadata", lambda *_, **__: SimpleNamespace(location=location))
    monkeypatch.setattr("huggingface_hub.file_download.http_get", lambda url, *_, **__: asked.append(url))
    file = HubFile(repository="a/b", revision="main", name="x.gguf", size=1, checksum="0" * 64)
    with pytest.raises(ModelError, match="without encryption"):
        fetch(file, tmp_path)
    assert not asked
