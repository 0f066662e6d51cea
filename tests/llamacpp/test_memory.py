from __future__ import annotations

from pathlib import Path

import pytest

from musicflamingo_cli.llamacpp import memory

MIB = 1 << 20


@pytest.mark.parametrize(
    ("listed", "expected"),
    [
        ("Available devices:\n  (none)\n", None),
        ("", None),
        (
            "ggml_cuda_init: found 1 CUDA devices:\n  Device 0: NVIDIA H200, compute capability 9.0\n"
            "Available devices:\n  CUDA0: NVIDIA H200 (143156 MiB, 142597 MiB free)\n",
            memory.Memory(142597 * MIB, 143156 * MIB, "NVIDIA H200"),
        ),
        (
            "Available devices:\n  Vulkan0: AMD Radeon RX 9070 (RADV GFX1201) (16304 MiB, 15000 MiB free)\n"
            "  Vulkan1: Intel(R) Arc (8192 MiB, 8000 MiB free)\n",
            memory.Memory(23000 * MIB, 24496 * MIB, "AMD Radeon RX 9070 (RADV GFX1201) + Intel(R) Arc"),
        ),
        (
            "Available devices:\n  Vulkan0: AMD Radeon RX 7600 (RADV NAVI33) (8176 MiB, 7900 MiB free)\n"
            "  Vulkan1: AMD Radeon 780M (RADV PHOENIX) (16000 MiB, 15000 MiB free)\n",
            memory.Memory(7900 * MIB, 8176 * MIB, "AMD Radeon RX 7600 (RADV NAVI33)"),
        ),
        (
            "Available devices:\n  Vulkan0: AMD Radeon 780M (RADV PHOENIX) (16000 MiB, 15000 MiB free)\n",
            memory.Memory(15000 * MIB, 16000 * MIB, "AMD Radeon 780M (RADV PHOENIX)"),
        ),
        (
            "Available devices:\n  Vulkan0: Intel(R) Arc(tm) A770 Graphics (DG2) (16288 MiB, 15700 MiB free)\n"
            "  Vulkan1: Intel(R) UHD Graphics 770 (ADL-S GT1) (48000 MiB, 42000 MiB free)\n",
            memory.Memory(15700 * MIB, 16288 * MIB, "Intel(R) Arc(tm) A770 Graphics (DG2)"),
        ),
        ("Available devices:\n  BLAS: OpenBLAS (0 MiB, 0 MiB free)\n", None),
    ],
)
def test_llama_cpps_list_of_devices_is_parsed(listed: str, expected: memory.Memory | None) -> None:
    assert memory.parse_devices(listed) == expected


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("Intel(R) Arc(tm) A770 Graphics (DG2)", False),
        ("Intel(R) Arc(tm) B580 Graphics (BMG G21)", False),
        ("Intel(R) Arc(tm) A370M Graphics (DG2)", False),
        ("Intel(R) Arc(tm) Pro B60 Graphics (BMG G21)", False),
        ("Intel(R) Arc(tm) Graphics (MTL)", True),
        ("Intel(R) Arc(tm) B390 Graphics (PTL)", True),
        ("Intel(R) Arc(tm) 140V GPU, Intel Graphics", True),
        ("Intel(R) UHD Graphics 770", True),
    ],
)
def test_which_cards_of_intel_are_integrated(name: str, expected: bool) -> None:
    assert memory.Card(name, 1, 1).is_integrated is expected


def test_a_warning_of_the_driver_is_no_card(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    program = tmp_path / "nvidia-smi"
    program.write_text("#!/bin/sh\necho 'NVIDIA H200, 143771, 143156'\necho 'WARNING: the log is full' >&2\n")
    program.chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path), prepend=":")
    assert memory.of_drivers() == memory.Memory(143156 * MIB, 143771 * MIB, "NVIDIA H200")


@pytest.mark.real
def test_the_real_binarys_devices_are_parsed(real_llama_dir: Path) -> None:
    found = memory.for_llama_cpp([str(real_llama_dir / "llama-server")])
    assert 0 < found.free <= found.total
    assert found.is_gpu == (found.where != "RAM")


def test_no_gpu_layers_means_ram() -> None:
    assert memory.for_llama_cpp(["/no/such/program"], 0).where == "RAM"
    assert memory.for_llama_cpp(["/no/such/program"]).where == "RAM"


def test_a_containers_memory_limit_counts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(memory, "_CGROUP", tmp_path)
    monkeypatch.setattr(memory, "_OWN_CGROUP", tmp_path / "own")
    (tmp_path / "own").write_text("0::/job/step\n")
    (tmp_path / "job" / "step").mkdir(parents=True)
    whole = memory.ram()
    (tmp_path / "memory.max").write_text("max\n")
    assert memory.ram().total == whole.total
    job = tmp_path / "job"  # a limit on the group around ours
    (job / "memory.max").write_text(f"{100 * MIB}\n")
    (job / "memory.current").write_text(f"{90 * MIB}\n")
    (job / "memory.stat").write_text(f"anon {60 * MIB}\ninactive_file {30 * MIB}\n")
    assert memory.ram() == memory.Memory(40 * MIB, 100 * MIB, "RAM")
