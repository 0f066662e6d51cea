from __future__ import annotations

import shutil
import struct
from pathlib import Path

import gguf
import numpy as np
import pytest

from musicflamingo_cli import models, tiny_model
from musicflamingo_cli.catalog import quant_of
from musicflamingo_cli.config import default_models_dir
from musicflamingo_cli.errors import ConfigError, ModelError
from musicflamingo_cli.gguf_header import read_header
from musicflamingo_cli.memory import Memory
from musicflamingo_cli.models import resolve

MODEL, PROJECTOR = tiny_model.LANGUAGE_MODEL_NAME, tiny_model.PROJECTOR_NAME


def put_real(folder: Path, tiny: Path, *quants: str) -> None:
    """Stand-ins under the real names: the tiny files, whose headers are whole."""
    for quant in quants:
        shutil.copy(tiny / MODEL, folder / f"music-flamingo-hf.{quant}.gguf")
    shutil.copy(tiny / PROJECTOR, folder / "music-flamingo-hf.mmproj-f16.gguf")


def test_the_header_is_what_the_gguf_package_reads(tiny_models: Path) -> None:
    for name in (MODEL, PROJECTOR):
        ours = read_header(tiny_models / name).values
        theirs = gguf.GGUFReader(tiny_models / name).fields
        scalars = {key: field.contents() for key, field in theirs.items() if field.types[0] != gguf.GGUFValueType.ARRAY}
        assert ours == pytest.approx({key: value for key, value in scalars.items() if not key.startswith("GGUF.")})


def test_the_tiny_pair_has_the_same_bytes_every_time(tiny_models: Path, tmp_path: Path) -> None:
    models.pull_tiny(tmp_path)
    for name in (MODEL, PROJECTOR):
        assert (tmp_path / name).read_bytes() == (tiny_models / name).read_bytes()
        assert (tmp_path / name).stat().st_size < 1_500_000
    assert sorted(path.name for path in tmp_path.iterdir()) == sorted([MODEL, PROJECTOR])


def test_the_tiny_pair_says_that_it_is_noise(tiny_models: Path) -> None:
    pair = resolve("tiny", tiny_models)
    assert pair.is_noise
    assert pair.label == "gguf_tiny_noise"
    assert pair.context_length == 32768


@pytest.mark.parametrize(("free", "chosen"), [(80, "Q8_0"), (11, "Q6_K"), (6, "IQ3_M"), (1, "IQ3_M")])
def test_auto_takes_the_best_that_fits_and_never_the_tiny_one(
    tiny_models: Path, tmp_path: Path, free: int, chosen: str
) -> None:
    models.pull_tiny(tmp_path)
    with pytest.raises(ModelError, match="no model in") as caught:
        resolve("auto", tmp_path)
    assert "models pull auto" in caught.value.hint
    put_real(tmp_path, tiny_models, "Q8_0", "IQ3_M", "Q6_K")
    pair = resolve("auto", tmp_path, None, lambda: Memory(free * 10**9, free * 10**9, "a GPU"))
    assert pair.language_model.name == f"music-flamingo-hf.{chosen}.gguf"
    assert f"{free}.0 GB are free (a GPU)" in pair.why
    assert ("Q4_K_M would need" in pair.why) == (chosen == "IQ3_M")
    assert pair.projector.name == "music-flamingo-hf.mmproj-f16.gguf"
    assert resolve("iq3_m", tmp_path).language_model.name == "music-flamingo-hf.IQ3_M.gguf"
    assert resolve("tiny", tmp_path).projector.name == PROJECTOR


def test_another_familys_quant_is_meant_only_by_its_full_name(tiny_models: Path, tmp_path: Path) -> None:
    theirs = tmp_path / "aaa--other-GGUF"
    theirs.mkdir()
    put_real(theirs, tiny_models, "Q6_K")
    with pytest.raises(ModelError, match="no Q6_K model"):
        resolve("Q6_K", tmp_path)
    with pytest.raises(ModelError, match="no model in"):
        resolve("auto", tmp_path)
    assert resolve("aaa/other-GGUF:Q6_K", tmp_path).language_model.parent == theirs
    put_real(tmp_path, tiny_models, "Q6_K")
    assert resolve("Q6_K", tmp_path).language_model.parent == tmp_path


def test_a_link_into_a_cache_that_was_emptied_is_no_model(tiny_models: Path, tmp_path: Path) -> None:
    (tmp_path / "music-flamingo-hf.Q6_K.gguf").symlink_to(tmp_path / "gone")
    assert models.installed(tmp_path) == []


@pytest.mark.parametrize(
    ("name", "error", "said", "hint"),
    [
        ("Q4_K_M", ModelError, "no Q4_K_M model", "models pull Q4_K_M"),
        ("some/where:Q6_K", ModelError, "no Q6_K model in", "models pull some/where:Q6_K"),
        ("some/where", ConfigError, "names no quant", "some/where:Q6_K"),
        ("tiny", ModelError, "not here", "models pull tiny"),
        ("nonsense", ConfigError, "neither a quant nor a path", "Q6_K"),
        ("/gone/x.gguf", ModelError, "no model file", "models list"),
    ],
)
def test_what_is_not_there(tmp_path: Path, name: str, error: type[Exception], said: str, hint: str) -> None:
    with pytest.raises(error, match=said) as caught:
        resolve(name, tmp_path)
    assert hint in caught.value.hint  # type: ignore[attr-defined]


def test_a_missing_half_and_swapped_halves(tiny_models: Path, tmp_path: Path) -> None:
    shutil.copy(tiny_models / MODEL, tmp_path / "x.Q6_K.gguf")
    with pytest.raises(ModelError, match="no projector"):
        resolve("Q6_K", tmp_path)
    with pytest.raises(ModelError, match="is a projector, not a language model"):
        resolve(str(tiny_models / PROJECTOR), tmp_path, tiny_models / MODEL)
    with pytest.raises(ModelError, match="is not a projector"):
        resolve("Q6_K", tmp_path, tiny_models / MODEL)


def test_a_projector_of_another_width(tiny_models: Path, tmp_path: Path) -> None:
    tiny_model.write_projector(tmp_path / "other.mmproj.gguf", projection=96)
    with pytest.raises(ModelError, match=r"96 wide.* takes 64"):
        resolve(str(tiny_models / MODEL), tmp_path, tmp_path / "other.mmproj.gguf")


def test_a_model_without_a_template(tmp_path: Path, tiny_models: Path) -> None:
    writer = gguf.GGUFWriter(tmp_path / "plain.gguf", "qwen2")
    writer.add_embedding_length(64)
    writer.add_tensor("x", np.zeros(32, np.float32))
    for step in (writer.write_header_to_file, writer.write_kv_data_to_file, writer.write_tensors_to_file, writer.close):
        step()
    with pytest.raises(ModelError, match="no chat template"):
        resolve(str(tmp_path / "plain.gguf"), tmp_path, tiny_models / PROJECTOR)


@pytest.mark.parametrize("kept", [0.2, 0.8, 0.95])
def test_a_truncated_file(tiny_models: Path, tmp_path: Path, kept: float) -> None:
    data = (tiny_models / MODEL).read_bytes()
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
def test_a_broken_header_is_one_sentence(tmp_path: Path, content: bytes) -> None:
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
        ("musicflamingo-tiny.F32.gguf", "F32"),
        ("BF16.gguf", "BF16"),
        ("model.gguf", ""),
    ],
)
def test_the_quant_in_a_name(name: str, quant: str) -> None:
    assert quant_of(Path(name)) == quant


def test_the_models_folder_of_a_checkout_is_its_own() -> None:
    assert default_models_dir() == Path(__file__).parent.parent / "models"
