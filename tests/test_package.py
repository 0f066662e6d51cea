"""The wheel as a stranger gets it: built, checked, installed into an empty environment, and used from there."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tarfile
import zipfile
from email.parser import HeaderParser
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
pytestmark = [pytest.mark.slow, pytest.mark.xdist_group("package")]
LARGEST_INSTALL = (
    250e6  # bytes on disk of what `pip install musicflamingo` brings: FFmpeg's libraries and numpy are 180e6
)


def run(*command: object, **more: object) -> subprocess.CompletedProcess[str]:
    done = subprocess.run(
        [*map(str, command)],
        capture_output=True,
        text=True,
        timeout=300,
        **more,  # type: ignore[call-overload]
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done  # type: ignore[no-any-return]


@pytest.fixture(scope="module")
def archives(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Return the sdist and the wheel that is built from it, by their kinds."""
    out = tmp_path_factory.mktemp("dist")
    run(sys.executable, "-m", "build", "--outdir", out, ROOT)
    return {"sdist": next(out.glob("*.tar.gz")), "wheel": next(out.glob("*.whl"))}


@pytest.fixture(scope="module")
def installed(archives: dict[str, Path], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return the folder of programs of an environment that has the wheel and what it requires."""
    place = tmp_path_factory.mktemp("stranger") / "venv"
    run(sys.executable, "-m", "venv", place)
    pip = (place / "bin" / "python", "-m", "pip", "install", "--quiet", "--constraint", ROOT / "constraints.txt")
    run(*pip, archives["wheel"])
    return place / "bin"


def environment(home: Path) -> dict[str, str]:
    """Return the variables of a stranger's shell: an empty home, none of ours."""
    kept = {name: value for name, value in os.environ.items() if name in ("PATH", "TMPDIR", "LANG")}
    return {**kept, "HOME": str(home)}


def test_a_package_index_would_accept_both(archives: dict[str, Path]) -> None:
    run(sys.executable, "-m", "twine", "check", "--strict", *archives.values())


def test_the_wheel_has_what_the_program_needs(archives: dict[str, Path]) -> None:
    with zipfile.ZipFile(archives["wheel"]) as wheel:
        names = wheel.namelist()
        metadata = HeaderParser().parsestr(
            wheel.read(next(name for name in names if name.endswith("/METADATA"))).decode()
        )
    assert metadata["License-Expression"] == "Apache-2.0"
    assert metadata["Requires-Python"] == ">=3.11"
    assert {"all", "embedded", "export", "native", "ray", "review", "serve", "stores", "transformers"} <= set(
        metadata.get_all("Provides-Extra") or ()
    )
    for needed in (
        "_data/scripts/patches/windows.patch",
        "_data/configs/prompts.yaml",
        "review/page/app.js",
        "py.typed",
    ):
        assert f"musicflamingo_cli/{needed}" in names
    assert not [name for name in names if name.startswith(("tests", "docs", "benchmarks", "tiny_flamingo"))]


def test_the_sdist_has_what_its_tests_need(archives: dict[str, Path]) -> None:
    with tarfile.open(archives["sdist"]) as sdist:
        names = {name.partition("/")[2] for name in sdist.getnames()}
    assert {"Makefile", "constraints.txt", "tests/conftest.py", "scripts/build_llama_cpp.sh", "docs/cli.md"} <= names


def test_the_base_install_is_small(installed: Path) -> None:
    packages = next((installed.parent / "lib").glob("python*/site-packages"))
    ours = [each for each in packages.iterdir() if not each.name.startswith(("pip", "setuptools", "__pycache__"))]
    files = [file for each in ours for file in ([each] if each.is_file() else each.rglob("*")) if file.is_file()]
    assert sum(file.stat().st_size for file in files if file.suffix != ".pyc") < LARGEST_INSTALL


def test_without_extras_each_missing_one_is_one_message(installed: Path, tmp_path: Path) -> None:
    song = next((ROOT / "models" / "tiny" / "songs").glob("*.mp3"))
    for line, command in (
        (("caption", song, "--model", "tiny", "--engine", "embedded"), "pip install xllamacpp"),
        (("caption", song, "--model", "tiny", "--engine", "transformers"), "pip install 'musicflamingo[transformers]'"),
        (("review", tmp_path), "pip install 'musicflamingo[review]'"),
    ):
        done = subprocess.run(
            [installed / "musicflamingo", *map(str, line)], env=environment(tmp_path), capture_output=True, text=True
        )
        assert done.returncode == 3, (line, done.stderr)
        assert command in done.stderr
        assert "Traceback" not in done.stderr


def test_every_command_works_from_the_wheel(installed: Path, tmp_path: Path) -> None:
    """From the demo to the report, far from any checkout, with the wheel of llama.cpp."""
    pip = (installed / "python", "-m", "pip", "install", "--quiet", "--constraint", ROOT / "constraints.txt")
    run(*pip, "xllamacpp")

    def stranger(*line: object) -> str:
        done = run(installed / "musicflamingo", *line, cwd=tmp_path, env=environment(tmp_path))
        assert "Traceback" not in done.stderr
        return done.stdout

    stranger("demo", "--engine", "embedded")
    music = tmp_path / "musicflamingo-demo"
    assert len(list(music.rglob("*.INFO"))) == 3
    for sidecar in music.rglob("*.INFO"):
        assert json.loads(sidecar.read_text())["music_flamingo_full"]
    stranger("batch", music, "--engine", "embedded", "--model", "tiny", "--preset", "brief")
    assert json.loads(stranger("status", music, "--json"))
    stranger("measure", music)
    stranger("check", music)
    (music / "mine.mp3").write_bytes(next(music.rglob("*.mp3")).read_bytes())
    (music / "mine.INFO").write_text('{"music_flamingo_full": "A slow organ piece in D minor."}')
    stranger("export", "jsonl", music, tmp_path / "captions.jsonl")  # leaves out the tiny model's captions
    assert (tmp_path / "captions.jsonl").read_text().count("\n") == 1
    stranger("report", music)
    assert json.loads(stranger("doctor", "--no-hearing", "--json", "--model", "tiny"))
    for command in ("prompts", "models"):
        assert stranger(command, "list")
    assert "cmake" in stranger("build", "--", "--dry-run", "--backend", "cpu")
