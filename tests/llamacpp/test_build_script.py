"""scripts/build_llama_cpp.sh: its command lines, and complete builds of a source that compiles in a second."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
import time
from pathlib import Path

import pytest

from musicflamingo_cli.llamacpp import binaries
from musicflamingo_cli.paths import data_file, llama_cache_dir
from tests.conftest import hear_interrupts
from tests.fakes.release import fake_release, redirect

pytestmark = pytest.mark.slow

SCRIPT = data_file("scripts", "build_llama_cpp.sh")
CMAKE = """
cmake_minimum_required(VERSION 3.14)
project(small C)
add_library(llama SHARED llama-server.c)
set_target_properties(llama PROPERTIES LIBRARY_OUTPUT_DIRECTORY ${CMAKE_BINARY_DIR}/bin VERSION 1.2)
option(GGML_NATIVE "" ON)
foreach(name llama-mtmd-cli llama-server llama-quantize)
  add_executable(${name} ${name}.c)
  set_target_properties(${name} PROPERTIES RUNTIME_OUTPUT_DIRECTORY ${CMAKE_BINARY_DIR}/bin)
  if (GGML_NATIVE)
    target_compile_definitions(${name} PRIVATE NATIVE)
  endif()
  add_dependencies(${name} llama)
endforeach()
"""
ANSWER = '#include <stdio.h>\nint main(void) { puts("The lead is an organ."); return 0; }\n'
PROGRAMS = {"CMakeLists.txt": CMAKE, "LICENSE": "MIT"}
PROGRAMS |= {f"{name}.c": ANSWER for name in ("llama-mtmd-cli", "llama-server", "llama-quantize")}
DIES_NATIVE = (
    "#include <signal.h>\n#include <stdio.h>\nint main(void) {\n#ifdef NATIVE\nraise(SIGNAL);\n#endif\n"
    'puts("The lead is an organ."); return 0; }\n'
)


def build(*arguments: object, **environment: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        ["bash", str(SCRIPT), *map(str, arguments)],
        capture_output=True,
        text=True,
        timeout=200,
        env={**os.environ, "PYTHON": sys.executable, **environment},
    )


@pytest.fixture
def source(tmp_path: Path) -> Path:
    """Return a stand-in for llama.cpp's source: three programs of one line."""
    folder = tmp_path / "source"
    folder.mkdir()
    for name, text in PROGRAMS.items():
        (folder / name).write_text(text)
    return folder


def test_shellcheck_finds_nothing() -> None:
    shellcheck = shutil.which("shellcheck", path=f"{Path(sys.executable).parent}:{os.environ['PATH']}")
    assert shellcheck
    done = subprocess.run(
        [shellcheck, "-x", *map(str, sorted(SCRIPT.parent.glob("*.sh")))], capture_output=True, text=True
    )
    assert done.returncode == 0, done.stdout


@pytest.mark.parametrize(
    ("backend", "more", "expected"),
    [
        ("cpu", [], ["-DBUILD_SHARED_LIBS=ON", "--target llama-mtmd-cli llama-server llama-quantize"]),
        ("cpu", [], ["windows.patch\ncmake", "output.patch\n", "llama.cpp/b11434-cpu\n"]),
        ("cpu", ["--no-patches"], ["llama.cpp/b11434-cpu-unpatched\n"]),
        ("cpu", ["--portable"], ["-DGGML_NATIVE=OFF", "-DGGML_AVX512="]),
        ("cpu", ["--avx2"], ["-DGGML_NATIVE=OFF", "-DGGML_AVX2=ON", "-DGGML_AVX512=OFF", "b11434-cpu-portable\n"]),
        ("cuda", ["--gpu-targets", "89"], ["-DGGML_CUDA=ON", "-DCMAKE_CUDA_ARCHITECTURES=89"]),
        ("auto", ["--cuda-wheels"], ["cuda-13.0/bin/nvcc", "-DCUDAToolkit_ROOT=", "b11434-cuda"]),
        ("hip", ["--gpu-targets", "gfx1201"], ["HIPCXX=", "HIP_PATH=", "-DGGML_HIP=ON", "-DGPU_TARGETS=gfx1201"]),
        ("vulkan", [], ["-DGGML_VULKAN=ON", "vulkan/vulkan-headers.patch"]),
        ("metal", ["--jobs", "3"], ["--parallel 3", "b11434-metal"]),
        ("cpu", ["--ref", "b12000", "--prefix", "/x/y"], ["-DLLAMA_BUILD_NUMBER=12000", "install into /x/y"]),
    ],
)
def test_a_dry_run_prints_the_cmake_lines(backend: str, more: list[str], expected: list[str]) -> None:
    done = build("--dry-run", "--backend", backend, *more)
    assert done.returncode == 0
    for part in expected:
        assert part in done.stdout
    assert not llama_cache_dir().exists()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--backend", "tpu"], "no backend tpu"),
        (["--jobs", "many"], "not a number"),
        (["--source", "/nowhere"], "no llama.cpp source in"),
        (["--ref", "a b"], "no ref"),
        (["--ref"], "needs a value"),
        (["--backend", "vulkan", "--cuda-wheels"], "--cuda-wheels is for the backend cuda"),
        (["--frobnicate"], "unknown option"),
    ],
)
def test_wrong_usage_exits_2(arguments: list[str], message: str) -> None:
    done = build(*arguments)
    assert done.returncode == 2
    assert message in done.stderr


def test_a_missing_tool_is_reported_with_its_package(tmp_path: Path) -> None:
    for manager, line in (
        ("apt-get", "apt-get install glslc"),
        ("pacman", "pacman -S shaderc"),
        ("", "install vulkan"),
    ):
        done = build("--backend", "vulkan", PATH=machine(tmp_path / f"with-{manager}", c=1, cmake=1, **{manager: 1}))
        assert done.returncode == 1
        assert line in done.stderr


def test_a_missing_patch_program_is_reported(tmp_path: Path) -> None:
    done = build("--backend", "cpu", PATH=machine(tmp_path / "without", c=1, cmake=1, **{"apt-get": 1}))
    assert done.returncode == 1
    assert "apt-get install patch (or build without it: --no-patches)" in done.stderr


# fmt: off
TOOLS = [
    "bash", "sh", "cat", "sed", "awk", "sort", "paste", "head", "tail", "tr", "dirname", "uname", "getconf", "grep",
    "mkdir", "rm", "ln", "env", "cut", "sha256sum",
]
# fmt: on


def machine(folder: Path, **programs: object) -> str:
    """Return a PATH with a shell, everyday tools, and these programs, which print the given texts."""
    folder.mkdir()
    for tool in TOOLS:
        if (path := shutil.which(tool)) is not None:
            (folder / tool).symlink_to(path)
    for name, output in programs.items():
        if name:
            file = folder / {"c": "c++", "nvidia_smi": "nvidia-smi"}.get(name, name)
            file.write_text(f"#!/bin/sh\ncat <<'END'\n{output}\nEND\n")
            file.chmod(0o755)
    return str(folder)


H200, R9700 = "NVIDIA H200, 9.0, 570.86\nNVIDIA H200, 9.0, 570.86", "cpu_cores_count 0\ngfx_target_version 120001"
VULKAN = "\tdeviceType         = PHYSICAL_DEVICE_TYPE_{}\n\tdeviceName         = {}"
NVCC = "Cuda compilation tools, release 12.8, V12.8.61"


@pytest.mark.parametrize(
    ("programs", "kfd", "message", "line"),
    [
        ({}, "", "backend: cpu (detected", ""),
        ({}, "gfx_target_version 0", "backend: cpu (detected", ""),
        (
            {"nvidia_smi": H200, "nvcc": NVCC},
            "",
            "backend: cuda, NVIDIA H200 (compute 9.0, driver 570.86),NVIDIA H200",
            "-DGGML_CUDA=ON -DCMAKE_CUDA_COMPILER={path}/nvcc -DCMAKE_CUDA_ARCHITECTURES=90",
        ),
        ({"nvidia_smi": H200, "apt-get": ""}, "", "sudo apt-get install nvidia-cuda-toolkit", ""),
        ({"hipconfig": "7.1.0"}, R9700, "backend: hip, gfx1201 HIP 7.1.0", "-DGGML_HIP=ON -DGPU_TARGETS=gfx1201"),
        ({"hipconfig": "6.4"}, "gfx_target_version 90010", "gfx90a", "-DGPU_TARGETS=gfx90a"),
        ({"dnf": ""}, R9700, "an AMD GPU (gfx1201) is here, but not ROCm's HIP: sudo dnf install rocm-hip-devel", ""),
        (
            {
                "glslc": "shaderc v2025.1" + "\nspirv-tools v2025.1" * 9999,
                "vulkaninfo": VULKAN.format("INTEGRATED_GPU", "AMD Radeon 780M (RADV PHOENIX)"),
            },
            "",
            "backend: vulkan, AMD Radeon 780M (RADV PHOENIX) shaderc v2025.1",
            "-DGGML_VULKAN=ON",
        ),
        ({"glslc": "shaderc", "vulkaninfo": VULKAN.format("CPU", "llvmpipe (LLVM 15.0.6)")}, "", "backend: cpu", ""),
    ],
)
def test_the_gpu_and_the_toolchain_are_detected(
    tmp_path: Path, programs: dict[str, str], kfd: str, message: str, line: str
) -> None:
    node = tmp_path / "nodes" / "1"
    node.mkdir(parents=True)
    (node / "properties").write_text(kfd + "\n")
    path = machine(tmp_path / "bin", **programs)
    done = build("--dry-run", PATH=path, MUSICFLAMINGO_KFD=str(tmp_path / "nodes"), CUDA_HOME=str(tmp_path))
    assert done.returncode == 0, done.stderr
    assert message in done.stderr
    assert line.format(path=path) in done.stdout


def test_a_build_is_checked_and_installed_only_once(source: Path) -> None:
    done = build("--source", source, "--backend", "cpu")
    assert done.returncode == 0, done.stderr
    assert "checked: asked about a song, it names the organ" in done.stderr
    binary = binaries.find("llama-server")
    assert binary.is_relative_to(llama_cache_dir() / "current")
    assert binaries.version(binary) == "local-cpu"
    programs = {"llama-mtmd-cli", "llama-server", "llama-quantize"}
    assert {path.name for path in binary.parent.iterdir()} == {*programs, "libllama.so", "libllama.so.1.2"}
    started = time.monotonic()
    second = build("--source", source, "--backend", "cpu")
    assert time.monotonic() - started < 1
    assert second.returncode == 0
    assert "compiling" not in second.stderr
    assert "compiling" in build("--source", source, "--backend", "cpu", "--force").stderr
    assert not list(llama_cache_dir().glob("work-*"))


def test_the_converter_of_adapters_comes_with_a_build(tmp_path: Path) -> None:
    parts = {
        "convert_lora_to_gguf.py": "import conversion",
        "conversion/__init__.py": "",
        "gguf-py/gguf/__init__.py": "",
    }
    git = redirect(fake_release(tmp_path / "llama.cpp", {**PROGRAMS, **parts}, "b11434"))
    installed = tmp_path / "build"
    done = build("--backend", "cpu", "--source", "git", "--prefix", installed, **git)
    assert done.returncode == 0, done.stderr
    assert (installed / "convert" / "convert_lora_to_gguf.py").read_text() == "import conversion"
    assert (installed / "convert" / "gguf-py" / "gguf" / "__init__.py").exists()
    # A build of an earlier release of ours gets it without being compiled again.
    shutil.rmtree(installed / "convert")
    again = build("--backend", "cpu", "--source", "git", "--prefix", installed, **git)
    assert again.returncode == 0, again.stderr
    assert "compiling" not in again.stderr
    assert (installed / "convert" / "conversion" / "__init__.py").exists()


def test_a_build_names_the_patches_in_it(tmp_path: Path) -> None:
    git = redirect(fake_release(tmp_path / "llama.cpp", PROGRAMS, "b11434"))
    command = ("--source", "git", "--backend", "cpu")
    assert build(*command, **git).returncode == 0
    patched = binaries.find("llama-mtmd-cli").resolve()
    assert binaries.version(patched) == "b11434-cpu+output+windows"
    assert "compiling" not in build(*command, **git).stderr
    assert build(*command, "--no-patches", **git).returncode == 0
    assert binaries.version(binaries.find("llama-mtmd-cli").resolve()) == "b11434-cpu"  # the newest
    assert patched.is_file()
    noted = llama_cache_dir() / "b11434-cpu" / "BUILD.llama.cpp"
    noted.write_text(noted.read_text().replace("windows ", "windows 0"))
    assert "compiling" in build(*command, **git).stderr


def test_patches_are_refused_where_they_do_not_apply(tmp_path: Path) -> None:
    git = redirect(fake_release(tmp_path / "llama.cpp", PROGRAMS, "b12000", differs="mtmd-audio.cpp"))
    command = ("--source", "git", "--backend", "cpu", "--ref", "b12000")
    done = build(*command, **git)
    assert done.returncode == 1
    assert "windows.patch does not apply to llama.cpp b12000, it is made for b11434" in done.stderr
    assert "--no-patches" in done.stderr
    assert not (llama_cache_dir() / "current").exists()
    assert build(*command, "--no-patches", **git).returncode == 0


def test_patches_apply_to_the_real_release(tmp_path: Path) -> None:
    """Fetches the pinned source, checks and patches it, and stops at the first program that would compile."""
    (tmp_path / "cmake").write_text("#!/bin/sh\nexit 1\n")
    (tmp_path / "cmake").chmod(0o755)
    (tmp_path / "glslc").symlink_to("/bin/true")
    done = build("--source", "sdist", "--backend", "vulkan", PATH=f"{tmp_path}:{os.environ['PATH']}")
    if "could be reached" in done.stderr:
        pytest.skip("the package index cannot be reached")
    assert "cmake could not configure" in done.stderr
    release = llama_cache_dir() / "work-b11434-vulkan" / "llama.cpp"
    assert "VK_HEADER_VERSION >= 272" in (release / "ggml" / "src" / "ggml-vulkan" / "ggml-vulkan.cpp").read_text()
    tools = release / "tools" / "mtmd"
    assert "preprocessor_music_flamingo::preprocess" in (tools / "mtmd-audio.cpp").read_text()
    assert "common_log_flush" in (tools / "mtmd-cli.cpp").read_text()
    assert not list(release.rglob("*.rej"))


def test_each_patch_says_what_why_and_until_when() -> None:
    patches = sorted(SCRIPT.parent.glob("patches/**/*.patch"))
    assert [patch.stem for patch in patches] == ["output", "vulkan-headers", "windows"]
    for patch in patches:
        header = patch.read_text().partition("--- a/")[0]
        assert re.findall(r"^(\w[\w ]*):", header, re.MULTILINE) == ["What", "Why", "Upstream", "When it can go"]


# Stands in for pip, which would fetch 525 MB: makes what NVIDIA's wheels have, in small.
WHEELS = """#!/bin/sh
case "$*" in *--version*) exit 0 ;; esac
while [ "$1" != --target ]; do shift; done
toolkit=$2/nvidia/cu13
mkdir -p "$toolkit/bin" "$toolkit/lib" "$toolkit/include"
printf '#!/bin/sh\\n' >"$toolkit/bin/nvcc" && chmod +x "$toolkit/bin/nvcc"
echo 'CUresult CUDAAPI cuMemMap(CUdeviceptr ptr); CUresult CUDAAPI cuGetErrorString(int);' >"$toolkit/include/cuda.h"
touch "$toolkit/lib/libcublas.so.13"
"""

CUDA_LIBRARY = """
add_library(ggml-cuda SHARED ggml-cuda.c)
set_target_properties(ggml-cuda PROPERTIES LIBRARY_OUTPUT_DIRECTORY ${CMAKE_BINARY_DIR}/bin)
target_link_libraries(ggml-cuda PRIVATE -L$ENV{CUDA_HOME}/lib64/stubs -lcuda)
target_link_libraries(llama-server PRIVATE ggml-cuda)
"""


def test_cuda_out_of_wheels_gets_what_a_linker_needs(source: Path, tmp_path: Path) -> None:
    python = tmp_path / "python"
    python.write_text(WHEELS)
    python.chmod(0o755)
    # As llama.cpp's: the programs use a library, which alone uses the driver.
    (source / "ggml-cuda.c").write_text("int cuMemMap(void); int map(void) { return cuMemMap(); }")
    (source / "llama-server.c").write_text("int map(void); int main(void) { return map() == 100; }")
    (source / "CMakeLists.txt").write_text(CMAKE + CUDA_LIBRARY)
    done = build("--source", source, "--cuda-wheels", "--no-check", PYTHON=str(python))
    assert done.returncode == 0, done.stderr
    toolkit = llama_cache_dir().parent / "cuda-13.0"
    assert (toolkit / "lib64" / "libcublas.so").resolve() == (toolkit / "lib" / "libcublas.so.13").resolve()
    # The library wants the driver's own, which the stub's folder does not have under that name.
    library = binaries.find("llama-server").parent / "libggml-cuda.so"
    dynamic = subprocess.run(["readelf", "-d", library], capture_output=True, text=True, check=True).stdout
    assert "libcuda.so.1" in dynamic
    assert f"$ORIGIN:{toolkit / 'lib64'}" in dynamic  # where cuBLAS is
    assert not (toolkit / "lib" / "stubs" / "libcuda.so.1").exists()
    assert binaries.version(binaries.find("llama-mtmd-cli")) == "local-cuda"


def test_cuda_wheels_that_cannot_be_fetched_leave_nothing(source: Path, tmp_path: Path) -> None:
    python = tmp_path / "python"
    python.write_text(WHEELS.replace("while", "exit 1; while"))
    python.chmod(0o755)
    done = build("--source", source, "--cuda-wheels", "--no-check", PYTHON=str(python))
    assert done.returncode == 1
    assert "CUDA could not be fetched" in done.stderr
    assert not (llama_cache_dir().parent / "cuda-13.0").exists()


@pytest.mark.parametrize("signal", ["SIGILL", "SIGSEGV"])
def test_a_native_build_that_dies_is_rebuilt_portable(source: Path, signal: str) -> None:
    (source / "llama-mtmd-cli.c").write_text(DIES_NATIVE.replace("SIGNAL", signal))
    done = build("--source", source, "--backend", "cpu")
    assert done.returncode == 0, done.stderr
    assert f"died of {signal}:" in done.stderr
    assert "building portable" in done.stderr
    assert binaries.version(binaries.find("llama-mtmd-cli")) == "local-cpu-portable"


@pytest.mark.parametrize(
    ("program", "text", "message"),
    [
        ("llama-mtmd-cli", "int main(void) { return 0; }", "does not run"),
        ("llama-mtmd-cli", ANSWER.replace("an organ", "a flute"), "does not run"),
        ("llama-quantize", "int main(void) { return 3; }", "exit code 3"),
        ("llama-server", "this is not C", "the compiler failed"),
    ],
)
def test_a_broken_build_is_not_installed(source: Path, program: str, text: str, message: str) -> None:
    (source / f"{program}.c").write_text(text)
    done = build("--source", source, "--backend", "cpu")
    assert done.returncode == 1
    assert message in done.stderr
    assert not (llama_cache_dir() / "current").exists()


def test_other_files_in_the_prefix_are_kept(source: Path, tmp_path: Path) -> None:
    prefix = tmp_path / "usr"
    (prefix / "bin").mkdir(parents=True)
    (prefix / "bin" / "mine").write_text("x")
    theirs = {prefix / name: f"{name} of something else" for name in ("VERSION", "PATCHES", "LICENSE")}
    for file, text in theirs.items():
        file.write_text(text)
    for _ in range(2):
        assert build("--source", source, "--backend", "cpu", "--prefix", prefix).returncode == 0
    assert (prefix / "bin" / "mine").read_text() == "x"
    assert {file: file.read_text() for file in theirs} == theirs
    assert binaries.version(prefix / "bin" / "llama-mtmd-cli") == "local-cpu"


def test_a_source_without_licence_is_built(source: Path) -> None:
    (source / "LICENSE").unlink()
    done = build("--source", source, "--backend", "cpu")
    assert done.returncode == 0, done.stderr
    assert binaries.version(binaries.find("llama-server")) == "local-cpu"


@pytest.mark.parametrize("prefix", [[], ["--prefix", "{folder}/prefix"]])
def test_another_or_changed_source_is_another_build(source: Path, tmp_path: Path, prefix: list[str]) -> None:
    other = tmp_path / "other"
    shutil.copytree(source, other)
    for folder in (source, other):
        (folder / "llama-server.c").write_text(ANSWER.replace("The lead", folder.name))
    options = ["--backend", "cpu", "--no-check", *(each.format(folder=tmp_path) for each in prefix)]

    def said_by(folder: Path) -> str:
        done = build("--source", folder, *options)
        assert done.returncode == 0, done.stderr
        return subprocess.run([f"{done.stdout.strip()}/llama-server"], capture_output=True, text=True).stdout

    assert "source is an organ" in said_by(source)
    assert "other is an organ" in said_by(other)
    assert "source is an organ" in said_by(source)
    (source / "llama-server.c").write_text(ANSWER.replace("The lead", "changed"))
    assert "changed is an organ" in said_by(source)


def test_a_build_from_before_the_notes_had_names_is_taken(tmp_path: Path) -> None:
    git = redirect(fake_release(tmp_path / "llama.cpp", PROGRAMS, "b11434"))
    command = ("--source", "git", "--backend", "cpu")
    assert build(*command, **git).returncode == 0
    folder = binaries.find("llama-server").resolve().parent.parent
    (folder / "VERSION.llama.cpp").rename(folder / "VERSION")
    patches = (folder / "BUILD.llama.cpp").read_text().splitlines(keepends=True)[-2:]
    (folder / "PATCHES").write_text("".join(patches))
    (folder / "BUILD.llama.cpp").unlink()
    again = build(*command, **git)
    assert "compiling" not in again.stderr
    assert "b11434-cpu+output+windows" in again.stderr


def test_ctrl_c_ends_the_compiler(source: Path, tmp_path: Path) -> None:
    (source / "CMakeLists.txt").write_text(
        CMAKE + "add_custom_target(slow COMMAND sleep 61)\nadd_dependencies(llama-server slow)\n"
    )
    command = ["bash", str(SCRIPT), "--source", str(source), "--backend", "cpu"]
    child = subprocess.Popen(
        command,
        stderr=subprocess.PIPE,
        text=True,
        preexec_fn=hear_interrupts,
        env={**os.environ, "PYTHON": sys.executable},
    )
    assert child.stderr
    for line in child.stderr:
        if "compiling" in line:
            break
    time.sleep(1.5)
    child.send_signal(2)
    assert child.wait(20) == 130
    time.sleep(0.5)
    listed = subprocess.run(["ps", "-ewwo", "args"], capture_output=True, text=True, check=True).stdout
    assert str(llama_cache_dir()) not in listed


def test_a_given_source_is_not_changed(source: Path) -> None:
    before = {path: path.read_bytes() for path in source.rglob("*") if path.is_file()}
    build("--source", source, "--backend", "cpu")
    assert {path: path.read_bytes() for path in source.rglob("*") if path.is_file()} == before


def test_the_build_command_passes_its_options_on() -> None:
    command = [sys.executable, "-m", "musicflamingo_cli", "build", "--", "--dry-run", "--backend", "hip"]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0
    assert "-DGGML_HIP=ON" in done.stdout
