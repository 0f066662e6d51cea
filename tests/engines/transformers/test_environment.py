"""What torch reports is asked in a child process, which may be slow, noisy or crash."""

from __future__ import annotations

import importlib.metadata
import importlib.util
import os
import re
import subprocess
import sys
import time
from pathlib import Path

import pytest

from musicflamingo_cli.choices import Attention, Quantization
from musicflamingo_cli.config import Settings
from musicflamingo_cli.engines.transformers import environment
from musicflamingo_cli.engines.transformers.environment import describe_environment, missing_libraries
from musicflamingo_cli.errors import ToolMissingError

ROOT = Path(__file__).parents[3]
# A torch with one GPU: what differs between NVIDIA's, AMD's and Apple's is filled in.
GPU = """
from types import SimpleNamespace as Module
__version__ = "2.9.1"
version = Module(cuda={cuda!r}, hip={hip!r})
def device(name): return Module(type=name.partition(":")[0])
cuda = Module(
    is_available=lambda: {has_cuda},
    mem_get_info=lambda device: (20_000_000_000, 24_000_000_000),
    is_bf16_supported=lambda including_emulation: False,
    get_device_name=lambda device: "A Card",
)
backends = Module(mps=Module(is_available=lambda: not {has_cuda}))
mps = Module(recommended_max_memory=lambda: 24_000_000_000, driver_allocated_memory=lambda: 1_000_000_000)
bfloat16 = "bf16"
def zeros(size, device): pass
def ones(*shape, **options): raise TypeError("no bf16")
"""


@pytest.fixture
def put_torch(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The file of a torch that the child imports instead of the real one."""
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join([str(tmp_path), str(ROOT)]))
    return tmp_path / "torch.py"


def test_the_real_torch_is_described() -> None:
    found = describe_environment("cpu")
    assert (found.torch, found.device, found.total) == (importlib.metadata.version("torch"), "cpu", 0)
    assert found.transformers == importlib.metadata.version("transformers")
    assert "processor" in found.device_name
    assert set(found.libraries) <= set(environment.OPTIONAL)


@pytest.mark.slow
def test_this_process_does_not_import_torch() -> None:
    code = (
        "import sys\nfrom musicflamingo_cli.engines.transformers.environment import describe_environment\n"
        "describe_environment()\nprint([name for name in ('torch', 'transformers') if name in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


@pytest.mark.parametrize(
    ("cuda", "hip", "device", "name", "free"),
    [
        ("12.8", None, "cuda", "A Card, CUDA 12.8", 20e9),
        (None, "6.4", "cuda", "A Card, ROCm 6.4", 20e9),
        (None, None, "mps", "Apple GPU", 23e9),
    ],
)
def test_a_gpu_is_preferred(
    put_torch: Path, cuda: str | None, hip: str | None, device: str, name: str, free: float
) -> None:
    put_torch.write_text(GPU.format(cuda=cuda, hip=hip, has_cuda=device == "cuda"))
    found = describe_environment()
    assert (found.device, found.device_name, found.free, found.total) == (device, name, free, 24e9)
    assert not found.has_bf16


@pytest.mark.parametrize(
    ("code", "message"),
    [
        ("import os; os.abort()", "torch does not start: exit code -6"),
        ("print('noise'); raise ImportError('libcudart.so.12: no such file')", "libcudart.so.12"),
        ("import time; time.sleep(60)", "did not end within 2 s"),
    ],
)
def test_a_broken_torch_is_an_error(put_torch: Path, monkeypatch: pytest.MonkeyPatch, code: str, message: str) -> None:
    monkeypatch.setattr(environment, "_SECONDS", 2.0)
    put_torch.write_text(code)
    started = time.monotonic()
    with pytest.raises(ToolMissingError, match=re.escape(message)) as caught:
        describe_environment()
    assert time.monotonic() - started < 30
    assert "pip install 'musicflamingo[transformers]'" in caught.value.hint


def test_a_device_that_is_not_there() -> None:
    with pytest.raises(ToolMissingError, match="torch does not start") as caught:
        describe_environment("nonsense")
    assert "--device" in caught.value.hint


def test_missing_packages_are_named_with_the_command(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(ToolMissingError, match="torch and transformers are not installed") as caught:
        describe_environment()
    assert caught.value.hint == "install it with: pip install 'musicflamingo[transformers]'"


@pytest.mark.parametrize(
    ("torch", "transformers", "unsupported"),
    [
        ("2.8.0", "5.20.0", []),
        ("2.13.0+cu130", "5.99.1.dev0", []),
        ("2.7.1", "5.23.0", ["torch 2.7.1"]),
        ("2.13.0", "5.19.4", ["transformers 5.19.4"]),
        ("2.13.0", "6.0.0", ["transformers 6.0.0"]),
    ],
)
def test_unsupported_versions(
    monkeypatch: pytest.MonkeyPatch, torch: str, transformers: str, unsupported: list[str]
) -> None:
    versions = {"torch": torch, "transformers": transformers}
    monkeypatch.setattr(importlib.metadata, "version", versions.__getitem__)
    assert environment.unsupported_versions() == unsupported
    if unsupported:
        with pytest.raises(ToolMissingError, match="not supported"):
            describe_environment()


def test_the_supported_versions_are_those_of_the_extra() -> None:
    for name, (low, high) in environment.VERSIONS.items():
        (line,) = re.findall(
            rf'^transformers = \[.*?"{name}>=([^"]*)"', (ROOT / "pyproject.toml").read_text(), re.DOTALL | re.MULTILINE
        )
        oldest, _, limit = line.partition(",<")
        assert oldest == ".".join(map(str, low))
        assert not limit or limit == ".".join(map(str, high))


def test_libraries_that_the_settings_need(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(environment, "_installed_libraries", lambda: {"accelerate": "1.0"})
    assert missing_libraries(Settings()) == []
    assert missing_libraries(Settings(quantize=Quantization.NF4)) == ["bitsandbytes"]
    both = Settings(quantize=Quantization.INT8, attention=Attention.FLASH_ATTENTION_2)
    assert missing_libraries(both) == ["torchao", "flash-attn"]
