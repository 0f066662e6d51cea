"""The rooms of the package and which may import which: imports only point down, and without cycles."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

PACKAGE = Path(__file__).parent.parent / "musicflamingo_cli"
# From the top down. A room may import the rooms below it, and modules of its own.
ROOMS = (
    "__main__",
    "cli",
    "api",
    "review",
    "report",
    "doctor",
    "finetuning",
    "exports",
    "demo",
    "serving",
    "cluster",
    "stores",
    "listening",
    "captioning",
    "trust",
    "engines",
    "dataset",
    "sidecars",
    "models",
    "llamacpp",
    "imported_prompts",
    "prompts",
    "text",
    "audio",
    "system",
    "config",
    "paths",
    "choices",
    "types",
    "errors",
    "_version",
)
MODULES = sorted(PACKAGE.rglob("*.py"))


def name_of(path: Path) -> str:
    """The module's dotted name below the package."""
    parts = path.relative_to(PACKAGE).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


def imports_of(path: Path) -> Iterator[str]:
    """What a module imports of the package, also inside functions and for type checking."""
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.ImportFrom) and (node.module or "").startswith("musicflamingo_cli"):
            below = (node.module or "").removeprefix("musicflamingo_cli").lstrip(".")
            for alias in node.names:
                module = f"{below}.{alias.name}".lstrip(".")
                is_module = (PACKAGE / Path(*module.split("."))).with_suffix(".py").exists()
                yield module if is_module else below


@pytest.mark.parametrize("path", [path for path in MODULES if name_of(path)], ids=name_of)
def test_imports_point_down(path: Path) -> None:
    room = name_of(path).partition(".")[0]
    for imported in imports_of(path):
        other = imported.partition(".")[0]
        assert other, "nothing is imported from the package's front"
        assert other == room or ROOMS.index(other) > ROOMS.index(room), f"{name_of(path)} imports {imported}"


def test_there_are_no_import_cycles() -> None:
    graph = {name_of(path): {name for name in imports_of(path) if name != name_of(path)} for path in MODULES}
    done: set[str] = set()

    def visit(name: str, above: tuple[str, ...]) -> None:
        assert name not in above, f"a cycle: {' -> '.join([*above, name])}"
        if name not in done:
            for other in sorted(graph.get(name, ())):
                visit(other, (*above, name))
            done.add(name)

    # The command line's modules register themselves with its front, which imports them last.
    graph["cli"] = set()
    graph[""] = set()
    for name in graph:
        visit(name, ())


def test_only_one_module_starts_programs() -> None:
    users = [name_of(path) for path in MODULES if "import subprocess" in path.read_text(encoding="utf-8")]
    assert users == ["system.processes"]


def test_only_the_command_line_prints() -> None:
    """Elsewhere messages are logged; the program behind engine `embedded` prints its devices, as llama-server does."""
    printing = {
        name_of(path)
        for path in MODULES
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8")))
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id == "print"
    }
    allowed = {
        "cli",
        "engines.server.embedded",
        "engines.native.worker",
        "engines.transformers.worker",
        "exports.tables",
    }
    assert printing <= allowed


def test_the_front_of_the_package_stays_small() -> None:
    assert len(list(PACKAGE.glob("*.py"))) <= 12
    assert {path.name for path in PACKAGE.iterdir() if path.is_dir() and path.name[0] not in "_."} <= set(ROOMS)


def test_no_module_is_long() -> None:
    lengths = {name_of(path): len(path.read_text(encoding="utf-8").splitlines()) for path in MODULES}
    assert {name: length for name, length in lengths.items() if length > 350} == {}
