"""GPUs by number: which there are, and what a child sees of them. A fake llama-server lists the devices."""

from __future__ import annotations

import json
import os
import sys
from dataclasses import replace
from pathlib import Path

import pytest

from musicflamingo_cli.config import Settings
from musicflamingo_cli.engines import open_engine
from musicflamingo_cli.engines.pool.engine import PoolEngine
from musicflamingo_cli.engines.pool.gpus import gpus_to_use, vulkan_numbers
from musicflamingo_cli.errors import ConfigError
from musicflamingo_cli.llamacpp import memory
from musicflamingo_cli.llamacpp.binaries import child_environment
from musicflamingo_cli.models.resolve import resolve
from musicflamingo_cli.types import Workload

CUDA = ("NVIDIA H200", "NVIDIA H200", "NVIDIA A100")
# As the driver counts them; llama.cpp lists discrete ones only, and renumbers them.
VULKAN = ("Intel(R) UHD Graphics 770", "AMD Radeon RX 9070", "llvmpipe (LLVM 15)", "AMD Radeon RX 7600")
_SERVER = """#!{python}
import json, os, sys
kind, names, variable = json.loads({listed!r})
if "--version" in sys.argv:
    print("version: 1 (fake)"); sys.exit()
if "--list-devices" in sys.argv:
    shown = os.environ.get(variable)
    chosen = [int(n) for n in shown.split(",")] if shown else range(len(names))
    cards = [names[n] for n in chosen if n < len(names)]
    if kind == "Vulkan" and not shown:
        cards = [name for name in cards if "UHD" not in name and "llvmpipe" not in name]
    print("Available devices:")
    for n, name in enumerate(cards):
        print(f"  {{kind}}{{n}}: {{name}} ({{8000 + 100 * n}} MiB, {{7000 + 100 * n}} MiB free)")
    sys.exit()
"""


def put_server(folder: Path, kind: str, names: tuple[str, ...], variable: str) -> Settings:
    binary = folder / "llama-server"
    binary.write_text(_SERVER.format(python=sys.executable, listed=json.dumps([kind, names, variable])))
    binary.chmod(0o755)
    return Settings(llama_dir=folder, gpus="all")


@pytest.fixture(autouse=True)
def _all_visible(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("CUDA_VISIBLE_DEVICES", "HIP_VISIBLE_DEVICES", "GGML_VK_VISIBLE_DEVICES"):
        monkeypatch.delenv(name, raising=False)


def test_all_gpus_of_cuda(tmp_path: Path) -> None:
    assert gpus_to_use(put_server(tmp_path, "CUDA", CUDA, "CUDA_VISIBLE_DEVICES")) == [0, 1, 2]


def test_vulkans_numbers_are_the_drivers(tmp_path: Path) -> None:
    assert gpus_to_use(put_server(tmp_path, "Vulkan", VULKAN, "GGML_VK_VISIBLE_DEVICES")) == [1, 3]


def test_a_clusters_choice_is_passed_on_to_vulkan(tmp_path: Path) -> None:
    settings = put_server(tmp_path, "Vulkan", VULKAN, "GGML_VK_VISIBLE_DEVICES")
    assert [vulkan_numbers(settings, chosen) for chosen in ("0", "1", "0,1", "7", "GPU-aa", "")] == [
        "1",
        "3",
        "1,3",
        "",
        "",
        "",
    ]
    assert vulkan_numbers(put_server(tmp_path, "CUDA", CUDA, "CUDA_VISIBLE_DEVICES"), "1") == ""


def test_no_gpu_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="no GPU"):
        gpus_to_use(put_server(tmp_path, "CUDA", (), "CUDA_VISIBLE_DEVICES"))


@pytest.mark.parametrize(
    ("kind", "names", "chosen", "missing"),
    [
        ("CUDA", CUDA, "0,2", None),
        ("CUDA", CUDA, "0,3", 3),
        ("CUDA", (), "0,2", 0),  # a build for the processor
        ("Vulkan", VULKAN, "3,0", None),  # also an integrated one, where it is named
        ("Vulkan", VULKAN, "1,4", 4),
    ],
)
def test_a_gpu_that_is_not_there_is_refused(
    tmp_path: Path, kind: str, names: tuple[str, ...], chosen: str, missing: int | None
) -> None:
    variable = "CUDA_VISIBLE_DEVICES" if kind == "CUDA" else "GGML_VK_VISIBLE_DEVICES"
    settings = replace(put_server(tmp_path, kind, names, variable), gpus=chosen)
    if missing is None:
        assert gpus_to_use(settings) == [int(part) for part in chosen.split(",")]
        return
    with pytest.raises(ConfigError, match=f"no GPU {missing}$"):
        gpus_to_use(settings)


def test_transformers_gpus_are_the_drivers(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A llama.cpp for the processor says nothing of them."""
    settings = put_server(tmp_path, "CUDA", (), "CUDA_VISIBLE_DEVICES")
    monkeypatch.setattr(memory, "_nvidia", lambda: [memory.Card(name, 9, 9) for name in CUDA])
    assert gpus_to_use(settings, by_drivers=True) == [0, 1, 2]
    with pytest.raises(ConfigError, match="no GPU 3"):
        gpus_to_use(replace(settings, gpus="3"), by_drivers=True)


@pytest.mark.parametrize("text", ["", "a", "0,,1", "-1", "0,0", "0 1", "1e3"])
def test_other_lists_are_refused(text: str) -> None:
    with pytest.raises(ConfigError, match="neither"):
        gpus_to_use(Settings(gpus=text))


def test_a_child_sees_its_own_gpu_only() -> None:
    own = child_environment("2")
    names = ("CUDA_VISIBLE_DEVICES", "HIP_VISIBLE_DEVICES", "GGML_VK_VISIBLE_DEVICES")
    assert [own[name] for name in names] == ["2", "2", "2"]
    assert not set(names) & set(child_environment())


def test_numbers_count_within_what_we_see(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "GPU-aa, GPU-bb")
    assert child_environment("1")["CUDA_VISIBLE_DEVICES"] == "GPU-bb"
    with pytest.raises(ConfigError, match="shows 2 GPUs"):
        child_environment("2")


def test_memory_is_that_of_the_smallest(tmp_path: Path) -> None:
    settings = put_server(tmp_path, "CUDA", CUDA, "CUDA_VISIBLE_DEVICES")
    assert memory.available(tmp_path, None, "all").free == 7000 << 20
    assert memory.available(tmp_path, None, None).free == 21300 << 20
    assert memory.for_llama_cpp([str(tmp_path / "llama-server")], None, "2").where == "NVIDIA A100"
    assert settings.gpus == "all"


def test_a_member_is_opened_for_each_gpu(tmp_path: Path, random_models: Path) -> None:
    settings = put_server(tmp_path, "CUDA", CUDA, "CUDA_VISIBLE_DEVICES")
    settings = replace(settings, engine="server", models_dir=random_models)  # type: ignore[arg-type]
    model = resolve("F32", random_models)
    engine, reason = open_engine(replace(settings, slots=2), model, Workload(9, 5, at_once=9))
    assert isinstance(engine, PoolEngine)
    assert engine.slots == 6
    assert [member.name for member in engine.members] == ["GPU 0", "GPU 1", "GPU 2"]
    assert "3 GPUs" in reason
    alone, _ = open_engine(replace(settings, gpus="1", slots=2), model, Workload(9, 5, at_once=9))
    assert not isinstance(alone, PoolEngine)
    assert alone._settings.gpus == "1"  # type: ignore[attr-defined]
    assert "CUDA_VISIBLE_DEVICES" not in os.environ
