"""The proof: after training on 60 songs, held-out songs are described in the dataset's own vocabulary, in every engine.

The captions call an organ a "reed organ", which the tiny model has never been taught.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from musicflamingo_cli.api import MusicFlamingoGGUF, MusicFlamingoTransformers
from musicflamingo_cli.cli import app
from musicflamingo_cli.errors import ModelError
from musicflamingo_cli.finetuning.plan import Split
from musicflamingo_cli.models.adapters import check_adapter
from musicflamingo_cli.paths import llama_cache_dir
from tests.engines.remote.test_real_endpoint import plain_server
from tests.finetuning.conftest import PRESETS, song_of, write_reviewed, write_song
from tiny_flamingo import captions

pytestmark = [pytest.mark.slow, pytest.mark.real, pytest.mark.timeout(900)]

TRAINED_ON = range(2_000_540, 2_000_600)  # 12 of them with an organ, two of these among the 7 for validation
HELD_OUT = range(1_500_000, 1_500_400)  # songs with and without an organ are taken from these
ORGANS, OTHERS = 12, 24
KEPT = ("tempo", "key", "mode", "drums")  # what must not get worse
GREEDY: dict[str, Any] = {"temperature": 0.0, "repeat_penalty": 1.0, "threads": 1, "retries": 0}
REMOTE = {name: value for name, value in GREEDY.items() if name != "threads"}
Answers = Mapping[int, Mapping[str, str]]  # by seed and preset


@dataclass(frozen=True)
class Learned:
    """What the module's tests share: the adapter, the songs, and what transformers says with and without it."""

    adapter: Path
    dataset: Path
    songs: Mapping[int, Path]
    before: Answers
    after: Answers


def seeds() -> list[int]:
    organs = [seed for seed in HELD_OUT if song_of(seed).lead == "organ"][:ORGANS]
    return organs + [seed for seed in HELD_OUT if song_of(seed).lead != "organ"][:OTHERS]


def answers(
    flamingo: MusicFlamingoGGUF | MusicFlamingoTransformers, songs: Mapping[int, Path]
) -> dict[int, dict[str, str]]:
    by_path = {path: seed for seed, path in songs.items()}
    with flamingo:
        done = list(flamingo.analyze_many(list(songs.values()), list(PRESETS), progress=False))
    assert not [failure for analysis in done for failure in analysis.failures]
    return {by_path[analysis.path]: dict(analysis.captions) for analysis in done}


@pytest.fixture(scope="module")
def learned(tmp_path_factory: pytest.TempPathFactory, real_llama_dir: Path) -> Iterator[Learned]:
    if not (real_llama_dir.parent / "convert").is_dir():
        pytest.fail("this build has no converter for adapters: run musicflamingo build")
    folder = tmp_path_factory.mktemp("learned")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("XDG_CACHE_HOME", str(folder / "cache"))
        (llama_cache_dir() / "current").parent.mkdir(parents=True)
        (llama_cache_dir() / "current").symlink_to(real_llama_dir.parent)
        write_reviewed(folder / "reviewed", TRAINED_ON)
        command = ["finetune", str(folder / "reviewed"), "--out", str(folder / "reeds"), "--model", "tiny"]
        command += ["--device", "cpu", "--threads", "2", "--rate", "2e-3", "--epochs", "3", "--batch", "2"]
        done = CliRunner().invoke(app, [*command, "-p", PRESETS[0], "-p", PRESETS[1]])
        assert done.exit_code == 0, done.output
        songs = {seed: write_song(folder / "songs", seed) for seed in seeds()}
        adapter = folder / "reeds"
        before = answers(MusicFlamingoTransformers("tiny", device="cpu", **GREEDY), songs)
        after = answers(MusicFlamingoTransformers("tiny", device="cpu", lora=adapter, **GREEDY), songs)
        yield Learned(adapter, folder / "reviewed", songs, before, after)
    shutil.rmtree(folder / "cache", ignore_errors=True)


def right(said: Answers, name: str) -> float:
    """The share of songs whose attribute is named rightly."""
    found = 0
    for seed, texts in said.items():
        heard = captions.heard(" ".join(texts.values()).replace("a reed organ", "an organ"))
        found += heard.get(name) == song_of(seed).labels()[name]
    return found / len(said)


def test_held_out_organs_are_called_by_the_new_word(learned: Learned) -> None:
    says = {seed: "reed organ" in " ".join(texts.values()) for seed, texts in learned.after.items()}
    organs = [says[seed] for seed in says if song_of(seed).lead == "organ"]
    assert (len(organs), len(says) - len(organs)) == (ORGANS, OTHERS)
    assert sum(organs) / len(organs) >= 0.9
    heard_before = {seed for seed, texts in learned.before.items() if "an organ" in " ".join(texts.values())}
    elsewhere = [seed for seed in says if says[seed] and song_of(seed).lead != "organ"]
    assert set(elsewhere) <= heard_before  # only where the model took another instrument for an organ before
    assert not any("an organ" in " ".join(texts.values()) for texts in learned.after.values())


@pytest.mark.parametrize("name", KEPT)
def test_what_it_knew_stays(name: str, learned: Learned) -> None:
    assert right(learned.after, name) >= right(learned.before, name) - 0.01


@pytest.mark.parametrize("engine", ["native", "server", "mtmd-cli", "embedded"])
def test_the_converted_adapter_gives_the_same(engine: str, learned: Learned, real_llama_dir: Path) -> None:
    some = dict(list(learned.songs.items())[:6] + list(learned.songs.items())[-6:])
    flamingo = MusicFlamingoGGUF("tiny", engine=engine, lora=learned.adapter, llama_dir=real_llama_dir, **GREEDY)
    found = answers(flamingo, some)
    same = [found[seed][preset] == learned.after[seed][preset] for seed in some for preset in PRESETS]
    assert len(same) == 24
    # `embedded` is llama.cpp without our patch, which gives the model padding as if it were music (docs/engines.md).
    assert sum(same) / len(same) >= (0.95 if engine != "embedded" else 0.75)


def test_an_endpoint_is_asked_for_the_adapter(learned: Learned, real_llama_dir: Path, tmp_path: Path) -> None:
    # Scaled to nothing unless a request asks for it; with --lora-init-without-apply, b11434 applies it all the same.
    loaded = ["--lora-scaled", f"{learned.adapter / 'adapter.gguf'}:0"]
    some = dict(list(learned.songs.items())[:6])  # with an organ
    with plain_server(real_llama_dir, tmp_path, *loaded) as address:
        with_it = answers(MusicFlamingoGGUF(endpoint=address, lora="reeds", **REMOTE), some)
        without = answers(MusicFlamingoGGUF(endpoint=address, **REMOTE), some)
        with pytest.raises(ModelError, match="has no adapter flutes"):
            answers(MusicFlamingoGGUF(endpoint=address, lora="flutes", **REMOTE), some)
    # The audio arrives as FLAC, rounded, so that phrases of one meaning may differ.
    assert sum("reed organ" in with_it[seed]["full"] for seed in some) >= len(some) - 1
    assert all("reed organ" not in without[seed]["full"] for seed in some)


def test_the_record_says_what_was_trained_on_what(learned: Learned) -> None:
    adapter = check_adapter(learned.adapter)
    record = json.loads((learned.adapter / "adapter.json").read_text(encoding="utf-8"))
    assert (adapter.base, adapter.has_projector) == ("musicflamingo-tiny", False)
    assert len(record["tracks"]["train"]) + len(record["tracks"]["validation"]) == len(TRAINED_ON)
    assert record["loss"]["best"] < 0.8 * record["loss"]["base"]
    assert str(learned.dataset) not in (learned.adapter / "adapter.json").read_text(encoding="utf-8")
    card = (learned.adapter / "README.md").read_text(encoding="utf-8")
    assert "base_model: musicflamingo-tiny" in card
    assert f"{len(record['tracks']['train'])} tracks" in card


def test_compare_finds_it_better(learned: Learned, real_llama_dir: Path, tmp_path: Path) -> None:
    command = ["compare", str(learned.dataset), "--lora", str(learned.adapter), "--html", str(tmp_path / "better.html")]
    command += ["--with", "native:tiny", "--llama-dir", str(real_llama_dir), "-p", "full", "--threads", "1", "--json"]
    done = CliRunner().invoke(app, command)
    assert done.exit_code == 0, done.output
    result = json.loads(done.stdout)
    held_out = check_adapter(learned.adapter).record["tracks"][Split.VALIDATION.value]
    assert result["tracks"] == len(held_out)
    assert result["claims"]["tempo"]["approved"] == len(held_out)
    has_organ = sum(song_of(int(name.removesuffix(".wav"))).lead == "organ" for name in held_out)
    words = {each["word"]: each for each in result["words"]}
    assert has_organ < 2 or words["reed"] == {"word": "reed", "approved": has_organ, "base": 0, "adapter": has_organ}
    page = (tmp_path / "better.html").read_text(encoding="utf-8")
    assert "claims agree with the adapter" in page
    assert "musicflamingo-tiny.Q8_0.gguf+reeds" in page
