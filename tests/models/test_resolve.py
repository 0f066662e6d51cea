from __future__ import annotations

import shutil
import struct
from pathlib import Path

import gguf
import numpy as np
import pytest

from musicflamingo_cli.errors import ConfigError, ModelError, MusicFlamingoError
from musicflamingo_cli.llamacpp.memory import Memory
from musicflamingo_cli.models import resolve as models
from musicflamingo_cli.models.catalog import quant_of
from musicflamingo_cli.models.gguf import read_header
from musicflamingo_cli.models.resolve import resolve
from musicflamingo_cli.paths import default_models_dir
from tiny_flamingo import random_pair

MODEL, PROJECTOR = random_pair.LANGUAGE_MODEL_NAME, random_pair.PROJECTOR_NAME


def put_real(folder: Path, tiny: Path, *quants: str) -> None:
    """Put copies of the random pair, whose headers are complete, under the real names."""
    for quant in quants:
        shutil.copy(tiny / MODEL, folder / f"music-flamingo-hf.{quant}.gguf")
    shutil.copy(tiny / PROJECTOR, folder / "music-flamingo-hf.mmproj-f16.gguf")


def test_headers_agree_with_the_gguf_package(random_models: Path) -> None:
    for name in (MODEL, PROJECTOR):
        ours = read_header(random_models / name).values
        theirs = gguf.GGUFReader(random_models / name).fields
        scalars = {key: field.contents() for key, field in theirs.items() if field.types[0] != gguf.GGUFValueType.ARRAY}
        assert ours == pytest.approx({key: value for key, value in scalars.items() if not key.startswith("GGUF.")})


def test_the_random_pair_is_reproducible(random_models: Path, tmp_path: Path) -> None:
    random_pair.write_random_pair(tmp_path)
    for name in (MODEL, PROJECTOR):
        assert (tmp_path / name).read_bytes() == (random_models / name).read_bytes()
        assert (tmp_path / name).stat().st_size < 1_500_000
    assert sorted(path.name for path in tmp_path.iterdir()) == sorted([MODEL, PROJECTOR])


def test_the_tiny_pair_comes_with_the_program(tmp_path: Path) -> None:
    pair = resolve("tiny", tmp_path / "empty")
    assert pair.is_tiny
    assert pair.label == "gguf_tiny"
    assert pair.context_length == 32768
    assert pair.size < 8e6
    assert "mmproj" in pair.projector.name


def test_the_tiny_pair_is_not_listed_as_installed() -> None:
    assert models.tiny_language_model() not in models.installed(default_models_dir())


@pytest.mark.parametrize(("free", "chosen"), [(80, "Q8_0"), (11, "Q6_K"), (6, "IQ3_M"), (1, "IQ3_M")])
def test_auto_takes_the_best_that_fits_but_never_tiny(
    random_models: Path, tmp_path: Path, free: int, chosen: str
) -> None:
    with pytest.raises(ModelError, match="no Music Flamingo in") as caught:
        resolve("auto", tmp_path)
    assert "models pull auto" in caught.value.hint
    put_real(tmp_path, random_models, "Q8_0", "IQ3_M", "Q6_K")
    pair = resolve("auto", tmp_path, None, lambda: Memory(free * 10**9, free * 10**9, "a GPU"))
    assert pair.language_model.name == f"music-flamingo-hf.{chosen}.gguf"
    assert f"{free}.0 GB are free (a GPU)" in pair.reason
    assert ("Q4_K_M would need" in pair.reason) == (chosen == "IQ3_M")
    assert pair.projector.name == "music-flamingo-hf.mmproj-f16.gguf"
    assert resolve("iq3_m", tmp_path).language_model.name == "music-flamingo-hf.IQ3_M.gguf"


def test_another_repositorys_quant_needs_its_full_name(random_models: Path, tmp_path: Path) -> None:
    theirs = tmp_path / "aaa--other-GGUF"
    theirs.mkdir()
    put_real(theirs, random_models, "Q6_K")
    with pytest.raises(ModelError, match="no Q6_K model"):
        resolve("Q6_K", tmp_path)
    with pytest.raises(ModelError, match="no Music Flamingo in"):
        resolve("auto", tmp_path)
    assert resolve("aaa/other-GGUF:Q6_K", tmp_path).language_model.parent == theirs
    put_real(tmp_path, random_models, "Q6_K")
    assert resolve("Q6_K", tmp_path).language_model.parent == tmp_path


def put_model(path: Path, title: str, tokens: list[str]) -> None:
    """Write a language model's header, with some thousand tokens."""
    writer = gguf.GGUFWriter(path, "qwen2")
    writer.add_name(title)
    writer.add_embedding_length(64)
    writer.add_token_list([*(f"token-{index}" for index in range(5_000)), *tokens])
    writer.add_chat_template("{{ messages }}")
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.close()


@pytest.mark.parametrize(
    ("name", "title", "tokens", "is_one"),
    [
        ("music-flamingo-hf.Q6_K.gguf", "Model", [], True),
        ("Music_Flamingo.Q6_K.gguf", "Model", [], True),
        ("a.Q6_K.gguf", "Music Flamingo Hf", [], True),
        ("a.Q6_K.gguf", "My Tune", ["<sound>"], True),
        ("Qwen2.5-7B-Instruct.Q6_K.gguf", "Qwen2.5 7B Instruct", [], False),
        ("a.Q6_K.gguf", "A <sound>", ["a<sound>", "<sounds>"], False),
        ("audio-flamingo-3-hf.Q6_K.gguf", "Model", ["<sound>"], False),
        ("a.Q6_K.gguf", "Audio Flamingo 3 Hf", ["<sound>"], False),
    ],
)
def test_auto_and_plain_quants_mean_music_flamingo_only(
    random_models: Path, tmp_path: Path, name: str, title: str, tokens: list[str], is_one: bool
) -> None:
    put_model(tmp_path / name, title, tokens)
    shutil.copy(random_models / PROJECTOR, tmp_path / "music-flamingo-hf.mmproj-f16.gguf")
    for name_given, message in (("auto", "no Music Flamingo in"), ("Q6_K", "no Q6_K model")):
        if is_one:
            assert resolve(name_given, tmp_path).language_model.name == name
        else:
            with pytest.raises(ModelError, match=message):
                resolve(name_given, tmp_path)
    assert resolve(str(tmp_path / name), tmp_path).language_model.name == name  # by its path, whatever it is


def test_a_quant_and_its_i1_twin_are_told_apart(random_models: Path, tmp_path: Path) -> None:
    """They are different files: `remove` must not delete the other one."""
    put_real(tmp_path, random_models, "Q6_K", "i1-Q6_K", "Q8_0", "i1-IQ3_M")
    for name, file in {"Q6_K": "Q6_K", "i1-Q6_K": "i1-Q6_K", "I1-q6_k": "i1-Q6_K", "IQ3_M": "i1-IQ3_M"}.items():
        expected = tmp_path / f"music-flamingo-hf.{file}.gguf"
        assert resolve(name, tmp_path).language_model == expected
        assert models.files_of(name, tmp_path) == [expected]
    with pytest.raises(ModelError, match="no I1-Q8_0 model"):
        resolve("i1-Q8_0", tmp_path)


def test_another_models_projector_is_not_taken(random_models: Path, tmp_path: Path) -> None:
    shutil.copy(random_models / MODEL, tmp_path / "mmy-music-flamingo.Q6_K.gguf")
    shutil.copy(random_models / PROJECTOR, tmp_path / "a.mmproj.gguf")
    theirs = (random_models / PROJECTOR).read_bytes().replace(b"musicflamingo", b"otherflamingo")
    (tmp_path / "mmproj-other.gguf").write_bytes(theirs)
    assert resolve("Q6_K", tmp_path).projector.name == "a.mmproj.gguf"


def test_a_dangling_link_is_not_a_model(random_models: Path, tmp_path: Path) -> None:
    (tmp_path / "music-flamingo-hf.Q6_K.gguf").symlink_to(tmp_path / "gone")
    assert models.installed(tmp_path) == []


@pytest.mark.parametrize(
    ("name", "error", "message", "hint"),
    [
        ("Q4_K_M", ModelError, "no Q4_K_M model", "models pull Q4_K_M"),
        ("some/where:Q6_K", ModelError, "no Q6_K model in", "models pull some/where:Q6_K"),
        ("some/where", ConfigError, "names no quant", "some/where:Q6_K"),
        ("nonsense", ConfigError, "neither a quant nor a path", "Q6_K"),
        ("/gone/x.gguf", ModelError, "no model file", "models list"),
    ],
)
def test_a_missing_model_is_an_error_with_a_hint(
    tmp_path: Path, name: str, error: type[MusicFlamingoError], message: str, hint: str
) -> None:
    with pytest.raises(error, match=message) as caught:
        resolve(name, tmp_path)
    assert hint in caught.value.hint


def test_a_missing_projector_and_swapped_files(random_models: Path, tmp_path: Path) -> None:
    shutil.copy(random_models / MODEL, tmp_path / "x.Q6_K.gguf")
    with pytest.raises(ModelError, match="no projector"):
        resolve("Q6_K", tmp_path)
    with pytest.raises(ModelError, match="is a projector, not a language model"):
        resolve(str(random_models / PROJECTOR), tmp_path, random_models / MODEL)
    with pytest.raises(ModelError, match="is not a projector"):
        resolve("Q6_K", tmp_path, random_models / MODEL)


def test_a_projector_of_another_width(random_models: Path, tmp_path: Path) -> None:
    random_pair.write_projector(tmp_path / "other.mmproj.gguf", projection=96)
    with pytest.raises(ModelError, match=r"96 wide.* takes 64"):
        resolve(str(random_models / MODEL), tmp_path, tmp_path / "other.mmproj.gguf")


def test_a_model_without_a_template(tmp_path: Path, random_models: Path) -> None:
    writer = gguf.GGUFWriter(tmp_path / "plain.gguf", "qwen2")
    writer.add_embedding_length(64)
    writer.add_tensor("x", np.zeros(32, np.float32))
    for step in (writer.write_header_to_file, writer.write_kv_data_to_file, writer.write_tensors_to_file, writer.close):
        step()
    with pytest.raises(ModelError, match="no chat template"):
        resolve(str(tmp_path / "plain.gguf"), tmp_path, random_models / PROJECTOR)


@pytest.mark.parametrize("kept", [0.2, 0.8, 0.95])
def test_a_truncated_file(random_models: Path, tmp_path: Path, kept: float) -> None:
    data = (random_models / MODEL).read_bytes()
    (tmp_path / "cut.gguf").write_bytes(data[: int(len(data) * kept)])
    with pytest.raises(ModelError, match="cut short"):
        read_header(tmp_path / "cut.gguf")


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"GGUF",
        b"not a model at all",
        b"GGUF" + struct.pack("<IQQ", 3, 1, 1),
        b"GGUF" + struct.pack("<IQQ", 3, 1, 2**60),
        b"GGUF" + struct.pack("<IQQQ", 3, 1, 1, 2**62),
        b"GGUF" + struct.pack("<IQQ", 99, 1, 1),
        b"GGUF" + struct.pack("<IQQQ", 3, 1, 1, 1) + b"k" + struct.pack("<I", 77),
    ],
)
def test_a_broken_header_is_a_model_error(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "x.gguf").write_bytes(content)
    with pytest.raises(ModelError) as caught:
        read_header(tmp_path / "x.gguf")
    assert "x.gguf" in str(caught.value)
    assert caught.value.hint


@pytest.mark.parametrize(
    ("name", "quant"),
    [
        ("music-flamingo-hf.Q6_K.gguf", "Q6_K"),
        ("music-flamingo-hf.i1-Q6_K.gguf", "Q6_K"),
        ("music-flamingo-hf.i1-IQ3_M.gguf", "IQ3_M"),
        ("model-q4_k_m.gguf", "Q4_K_M"),
        ("musicflamingo-random.F32.gguf", "F32"),
        ("BF16.gguf", "BF16"),
        ("model.gguf", ""),
    ],
)
def test_the_quant_in_a_file_name(name: str, quant: str) -> None:
    assert quant_of(Path(name)) == quant


def test_a_checkout_has_its_own_models_folder() -> None:
    assert default_models_dir() == Path(__file__).parents[2] / "models"
