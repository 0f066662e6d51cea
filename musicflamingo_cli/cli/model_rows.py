"""How models are listed and described, as text and as JSON."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from musicflamingo_cli.config import GenerationSettings
from musicflamingo_cli.llamacpp.memory import RESERVE, Memory
from musicflamingo_cli.models.adapter_gguf import is_converted
from musicflamingo_cli.models.catalog import load_catalog, quant_of
from musicflamingo_cli.models.checkpoints import installed_checkpoints, name_of, size_of
from musicflamingo_cli.models.generators import Generator, installed_generators
from musicflamingo_cli.models.model import Adapter, Checkpoint, Model, ModelPair
from musicflamingo_cli.models.resolve import installed, is_music_flamingo, published

_GB = 1e9
_TINY_REMARK = ", the tiny model: it knows no real music"


def rows_of(folder: Path, free: Memory) -> list[dict[str, Any]]:
    """Return the rows of `models list`: quants, checkpoints and generators, published ones and others installed."""
    return [*_quant_rows(folder, free), *_checkpoint_rows(folder, free), *_generator_rows(folder, free)]


def _quant_rows(folder: Path, free: Memory) -> list[dict[str, Any]]:
    catalog, own = load_catalog(), published(folder)
    others, rows = installed(folder), []
    for quant in catalog.quants:
        file = next((file for file in own if quant_of(file) == quant.name), None)
        others = [other for other in others if other != file]
        rows.append(
            {
                "quant": quant.name,
                "bytes": file.stat().st_size if file else quant.size,
                "memory_bytes": catalog.needed(quant),
                "fits": catalog.needed(quant) <= free.free,
                "recommended": quant.name == catalog.recommended,
                "path": str(file) if file else None,
            }
        )
    rows += [{"quant": quant_of(file), "bytes": file.stat().st_size, "path": str(file)} for file in others]
    return rows


def _checkpoint_rows(folder: Path, free: Memory) -> list[dict[str, Any]]:
    catalog = load_catalog()
    present = {name_of(path): path for path in installed_checkpoints(folder)}
    rows = []
    for name in dict.fromkeys([*(each.repository for each in catalog.checkpoints), *present]):
        path, published = present.get(name), catalog.checkpoint(name)
        size = size_of(path) if path else published.size if published else 0
        needed = catalog.needed_by_weights(size)
        rows.append(
            {
                "checkpoint": name,
                "bytes": size,
                "memory_bytes": needed,
                "fits": needed <= free.free,
                "recommended": name == catalog.checkpoints[0].repository,
                "max_seconds": published.max_seconds if published else None,
                "reasons": published.reasons if published else None,
                "licence": published.licence if published else None,
                "path": str(path) if path else None,
            }
        )
    return rows


def _generator_rows(folder: Path, free: Memory) -> list[dict[str, Any]]:
    catalog = load_catalog()
    present = {name_of(path): path for path in installed_generators(folder)}
    rows = []
    for name in dict.fromkeys([*(each.repository for each in catalog.generators), *present]):
        path, published = present.get(name), catalog.generator(name)
        size = size_of(path) if path else published.size if published else 0
        rows.append(
            {
                "generator": name,
                "bytes": size,
                "memory_bytes": size + RESERVE,
                "fits": size + RESERVE <= free.free,
                "recommended": name == GenerationSettings().generator,
                "licence": published.licence if published else None,
                "path": str(path) if path else None,
            }
        )
    return rows


def adapter_row(adapter: Adapter) -> dict[str, Any]:
    """Return the row of `models check` for an adapter that passed."""
    return {
        "adapter": str(adapter.folder),
        "base": adapter.base,
        "projector": adapter.has_projector,
        "gguf": is_converted(adapter),
        "bytes": adapter.size,
        "good": True,
    }


def adapter_line(adapter: Adapter) -> str:
    """Return the line of `models check` for an adapter that passed."""
    runs = "transformers only" if adapter.has_projector else "all engines"
    converted = "" if adapter.has_projector or is_converted(adapter) else ", not converted for llama.cpp yet"
    return f"{adapter.name}: an adapter for {adapter.base}, {adapter.size / 1e6:.1f} MB, for {runs}{converted}, ok"


def good_row(model: Model | Generator) -> dict[str, Any]:
    """Return the row of `models check` for a model that passed."""
    if isinstance(model, Generator):
        return model.as_json()
    row = {"model": str(model.path), "mmproj": None, "good": True}
    if model.adapter:
        row["adapter"] = str(model.adapter.folder)
    facts = {"context_length": model.context_length, "max_seconds": model.max_seconds, "tiny": model.is_tiny}
    if isinstance(model, ModelPair):
        row |= {"mmproj": str(model.projector), "architecture": model.architecture}
        row |= {"projector_type": model.projector_type, "music_flamingo": is_music_flamingo(model.language_model)}
    elif isinstance(model, Checkpoint):
        row |= {"checkpoint": model.name, "architecture": model.model_type, "reasons": model.reasons}
    return row | facts


def good_line(model: Model | Generator) -> str:
    """Return the line of `models check` for a model that passed."""
    if isinstance(model, Generator):
        sound = "stereo" if model.channels == 2 else "mono"
        licence = f", licence {model.licence}" if model.licence else ""
        return f"{model.name}: {model.model_type}, makes music at {model.rate} Hz, {sound}{licence}, ok"
    remark = f", with the adapter {model.adapter.name}" if model.adapter else ""
    remark += _TINY_REMARK if model.is_tiny else ""
    if isinstance(model, ModelPair):
        remark = remark or ("" if is_music_flamingo(model.language_model) else ", not Music Flamingo")
        kind = f"{model.name} + {model.projector_name}: {model.architecture} with {model.projector_type}"
        return f"{kind}, {model.context_length} tokens{remark}, ok"
    remark = remark or (", reasons before it answers" if model.reasons else "")
    kind = f"{model.name}: {model.model_type}" if isinstance(model, Checkpoint) else model.name
    return f"{kind}, {model.context_length} tokens, {model.max_seconds:.0f} s of audio{remark}, ok"
