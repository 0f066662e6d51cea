"""The dialect that this project left stays left: user-visible strings, docstrings, comments and Markdown are scanned.

Each pattern is wording that a reader has to translate; beside it the better words.
"""

from __future__ import annotations

import ast
import io
import re
import tokenize
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
BANNED = {
    r"\btoys?\b": "tiny model",
    r"\bnoise model\b": "tiny model",
    r"\blanes?\b": "slot",
    r"\bdeaf\b": "cannot process audio",
    r"\bin work\b": "in progress",
    r"\bat work on\b": "in progress",
    r"\breckon(s|ed|ing)?\b": "estimate",
    r"\bmend(s|ed|ing)?\b": "fix",
    r"\bwithout a word\b": "silently",
    r"\bwith a (word|sentence)\b": "with a message, with an error",
    r"\bgoes on its way\b": "is re-raised",
    r"\bgoes on where\b": "resumes where",
    r"\bwhat becomes of\b": "the result of",
    r"\bso that nobody\b": "so that it is not",
    r"\b(is|are) told\b": "is reported",
    r"\bfailed for now\b": "failed temporarily",
    r"\bfault of ours\b": "bug",
    r"\bin truth\b": "actual",
    r"\bfor ever\b": "forever",
    r"\bpatient\b": "slowly",
    r"\blast words?\b": "last lines of its log",
    r"(?<!there )\bis no (folder|model|tokenizer|export)\b": "is not a",
    r"\bnobody (knows|says)\b": "it is not known",
    r"\bhas ears\b|\bgives it ears\b|\bwith ears\b": "audio encoder",
    r"\bgood words\b|\bmodel's words\b|\btheir words\b": "captions, text",
    r"\bwritten again what\b|\bwrite again\b": "regenerate",
    r"\bprompt_type\b": "preset (except in the published API)",
}
# The published API's argument, and keys whose names on disk stay.
ALLOWED = {"prompt_type": ("api.py", "python.md", "python", "README.md"), "toy": ()}
ON_DISK = re.compile(r"musicflamingo\.toy|[\"'`]toy[\"'`]")


def markdown() -> Iterator[Path]:
    """All Markdown of the project."""
    yield from ROOT.glob("*.md")
    for folder in ("docs", "models", "tiny_flamingo"):
        yield from (ROOT / folder).rglob("*.md")


def python_texts(path: Path) -> Iterator[tuple[int, str]]:
    """Line numbers and texts of a module's string literals (f-strings too) and comments."""
    source = path.read_text(encoding="utf-8")
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Constant) and isinstance(node.value, str):
            yield node.lineno, node.value
    for token in tokenize.generate_tokens(io.StringIO(source).readline):
        if token.type == tokenize.COMMENT:
            yield token.start[0], token.string


def findings(path: Path, texts: Iterator[tuple[int, str]]) -> Iterator[str]:
    for line, text in texts:
        shown = ON_DISK.sub("", f'"{text}"' if text == "toy" else text)
        for pattern, better in BANNED.items():
            match = re.search(pattern, shown, re.IGNORECASE)
            if match and path.name not in ALLOWED.get(match[0].lower(), ()):
                yield f"{path.relative_to(ROOT)}:{line}: {match[0]!r}; better: {better}"


FOLDERS = ("musicflamingo_cli", "tests", "benchmarks", "docs", "tiny_flamingo")
MODULES = sorted(path for folder in FOLDERS for path in (ROOT / folder).rglob("*.py") if path != Path(__file__))
PAGES = sorted(set(markdown()))
SCRIPTS = ["scripts/build_llama_cpp.sh", "scripts/detect_gpu.sh", "configs/prompts.yaml"]
SCRIPTS += [f"scripts/patches/{name}.patch" for name in ("output", "windows")]


@pytest.mark.parametrize("path", MODULES, ids=lambda path: str(path.relative_to(ROOT)))
def test_modules_are_in_plain_english(path: Path) -> None:
    assert list(findings(path, python_texts(path))) == []


@pytest.mark.parametrize("path", PAGES, ids=lambda path: str(path.relative_to(ROOT)))
def test_pages_are_in_plain_english(path: Path) -> None:
    lines = enumerate(path.read_text(encoding="utf-8").splitlines(), 1)
    assert list(findings(path, lines)) == []


@pytest.mark.parametrize("name", SCRIPTS)
def test_scripts_are_in_plain_english(name: str) -> None:
    lines = enumerate((ROOT / name).read_text(encoding="utf-8").splitlines(), 1)
    assert list(findings(ROOT / name, lines)) == []


def test_the_scan_finds_a_banned_phrase(tmp_path: Path) -> None:
    module = ROOT / "musicflamingo_cli" / "example.py"  # not on disk: only its name is used
    assert list(findings(module, iter([(1, "the toy is deaf")])))
    assert not list(findings(module, iter([(1, "the tiny model"), (2, "toy")])))


def test_names_of_tests_are_short() -> None:
    names = (
        node.name
        for path in (ROOT / "tests").rglob("test_*.py")
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8")))
        if isinstance(node, ast.FunctionDef) and node.name.startswith("test_")
    )
    assert [name for name in names if len(name) > 62] == []
