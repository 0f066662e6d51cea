"""The tiny model's checkpoint: what is in the folder, and that transformers loads it and it knows the demo's songs."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from musicflamingo_cli.demo.songs import songs
from musicflamingo_cli.models import tiny_checkpoint
from musicflamingo_cli.models.checkpoints import TINY_KEY
from musicflamingo_cli.models.resolve import resolve
from musicflamingo_cli.models.tiny_checkpoint import complete_folder, write_checkpoint
from musicflamingo_cli.paths import built_in_prompts
from musicflamingo_cli.prompts import read_presets

FILES = [
    "chat_template.jinja",
    "config.json",
    "generation_config.json",
    "model.safetensors",
    "processor_config.json",
    "tokenizer.json",
    "tokenizer_config.json",
]


def write(folder: Path, as_music_flamingo: bool = False) -> Path:
    pair = resolve("tiny", folder)
    write_checkpoint(pair.language_model, pair.projector, folder, as_music_flamingo=as_music_flamingo)
    return folder


@pytest.mark.parametrize("as_music_flamingo", [False, True])
def test_the_folder_has_all_that_is_loaded(tmp_path: Path, as_music_flamingo: bool) -> None:
    folder = write(tmp_path / "models" / "tiny", as_music_flamingo)
    assert sorted(path.name for path in folder.iterdir()) == FILES
    assert list(folder.parent.iterdir()) == [folder], "no temporary folder is left"
    config = json.loads((folder / "config.json").read_text())
    assert config["model_type"] == ("musicflamingo" if as_music_flamingo else "audioflamingo3")
    assert config["musicflamingo.toy"] is True
    assert sum(path.stat().st_size for path in folder.iterdir()) < 12e6


def test_every_weight_of_the_pair_is_there(tmp_path: Path) -> None:
    import gguf
    from safetensors.numpy import load_file

    weights = load_file(write(tmp_path / "tiny", True) / "model.safetensors")
    pair = resolve("tiny", tmp_path)
    tensors = [tensor for path in (pair.language_model, pair.projector) for tensor in gguf.GGUFReader(path).tensors]
    assert len(weights) == len(tensors)
    # The class MusicFlamingo has two tokens more, of zeros, in the embeddings and in the output.
    assert sum(array.size for array in weights.values()) == sum(int(t.n_elements) for t in tensors) + 2 * 2 * 128
    assert not weights["language_model.lm_head.weight"][768:].any()
    assert {array.dtype for array in weights.values()} == {np.dtype("float32")}


def test_writing_needs_no_torch(tmp_path: Path) -> None:
    script = (
        "import sys; from pathlib import Path; from musicflamingo_cli.models.resolve import resolve;"
        "from musicflamingo_cli.models.tiny_checkpoint import write_checkpoint;"
        "pair = resolve('tiny', Path());"
        f"write_checkpoint(pair.language_model, pair.projector, Path({str(tmp_path / 'tiny')!r}));"
        "assert not {'torch', 'transformers'} & set(sys.modules)"
    )
    subprocess.run([sys.executable, "-c", script], check=True, timeout=60)
    assert (tmp_path / "tiny" / "config.json").is_file()


def test_a_failure_leaves_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: object) -> None:
        raise OSError("no space left on device")

    monkeypatch.setattr(tiny_checkpoint, "_write_weights", full)  # the last file
    with pytest.raises(OSError, match="no space"):
        write(tmp_path / "tiny")
    assert list(tmp_path.iterdir()) == []


def test_a_checkpoint_that_is_there_stays(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    before = (write(tmp_path / "tiny") / "config.json").stat()
    monkeypatch.setitem(sys.modules, "gguf", None)  # nor is the GGUF pair read again
    write(tmp_path / "tiny")
    assert (tmp_path / "tiny" / "config.json").stat() == before


def test_the_faster_of_two_processes_wins(tmp_path: Path) -> None:
    with complete_folder(tmp_path / "tiny") as part:
        (part / "config.json").write_text("ours")
        (tmp_path / "tiny").mkdir()
        (tmp_path / "tiny" / "config.json").write_text("theirs")
    assert (tmp_path / "tiny" / "config.json").read_text() == "theirs"
    assert len(list(tmp_path.iterdir())) == 1


def test_other_files_are_not_taken_for_a_checkpoint(tmp_path: Path) -> None:
    (tmp_path / "tiny").mkdir()
    (tmp_path / "tiny" / "notes.txt").write_text("mine")
    with pytest.raises(OSError, match="not empty"):
        write(tmp_path / "tiny")
    assert [path.name for path in (tmp_path / "tiny").iterdir()] == ["notes.txt"]


@pytest.mark.slow
@pytest.mark.parametrize("as_music_flamingo", [False, True])
def test_it_knows_the_demo_songs(tmp_path: Path, as_music_flamingo: bool) -> None:
    """Asked through the processor's own template, as the published models are: text before audio, one question."""
    from tiny_flamingo.in_transformers import InTransformers

    paths = {song.path: song for song in songs()}
    flamingo = InTransformers(write(tmp_path / "tiny", as_music_flamingo))
    for analysis in flamingo.analyze_many(list(paths), ["technical", "instrumentation"]):
        assert paths[analysis.path].missed(" ".join(analysis.captions.values())) == []


@pytest.mark.slow
@pytest.mark.parametrize("as_music_flamingo", [False, True])
def test_transformers_finds_every_weight(tmp_path: Path, as_music_flamingo: bool) -> None:
    from transformers import AutoModelForSeq2SeqLM

    folder = write(tmp_path / "tiny", as_music_flamingo)
    model, report = AutoModelForSeq2SeqLM.from_pretrained(folder, output_loading_info=True)
    assert not any(report.values()), report
    assert type(model).__name__.startswith("MusicFlamingo" if as_music_flamingo else "AudioFlamingo3")
    assert getattr(model.config, TINY_KEY)
    assert model.generation_config.eos_token_id == [764, 765]


@pytest.mark.slow
def test_the_processor_puts_the_audio_first(tmp_path: Path) -> None:
    from transformers import AutoProcessor

    processor = AutoProcessor.from_pretrained(write(tmp_path / "tiny"))
    text, audio = {"type": "text", "text": "What is it?"}, {"type": "audio", "audio": np.zeros(16_000, np.float32)}
    for content in ([text, audio], [audio, text]):
        rendered = processor.apply_chat_template([{"role": "user", "content": content}], add_generation_prompt=True)
        assert rendered == "<|im_start|>user\n<sound>What is it?<|im_end|>\n<|im_start|>assistant\n"
    rendered = processor.apply_chat_template([{"role": "user", "content": [text, text]}])
    assert rendered == "<|im_start|>user\nWhat is it?What is it?<|im_end|>\n"
    prompt = read_presets(built_in_prompts())["full"].prompt
    ids = processor.tokenizer(prompt)["input_ids"]
    assert processor.tokenizer.decode(ids) == prompt
    assert len(ids) < len(prompt) / 2, "the merges are used"
