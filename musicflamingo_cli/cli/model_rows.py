"""How models are listed and described, as text and as JSON."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from musicflamingo_cli.llamacpp.memory import Memory
from musicflamingo_cli.models.catalog import load_catalog, quant_of
from musicflamingo_cli.models.checkpoints import installed_checkpoints, name_of, size_of
from musicflamingo_cli.models.model import Checkpoint, Model, ModelPair
from musicflamingo_cli.models.resolve import installed, is_music_flamingo, published

_GB = 1e9
_TINY_REMARK = ", the tiny model: it knows no real music"


def rows_of(folder: Path, free: Memory) -> list[dict[str, Any]]:
    """Return the rows of `models list`: quants and checkpoints, published ones and others in the models folder."""
    return [*_quant_rows(folder, free), *_checkpoint_rows(folder, free)]


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


def line(row: dict[str, Any]) -> str:
    """Return a row as a line of text."""
    name, place = row.get("quant") or row.get("checkpoint", ""), row["path"] or "not installed"
    needs = ""
    if "memory_bytes" in row:
        fits = "fits" if row["fits"] else "too large"
        needs = f"needs {row['memory_bytes'] / _GB:4.1f} GB, {fits:9}{' recommended' if row['recommended'] else ''}"
    if "checkpoint" in row:
        longest = f"{row['max_seconds'] / 60:2.0f} min" if row["max_seconds"] else ""
        return f"{name:37} {row['bytes'] / _GB:5.1f} GB  {needs:36} {longest:6}  {place}"
    return f"{name:8} {row['bytes'] / _GB:5.1f} GB  {needs:36} {place}"


def good_row(model: Model) -> dict[str, Any]:
    """Return the row of `models check` for a model that passed."""
    row = {"model": str(model.path), "mmproj": None, "good": True}
    facts = {"context_length": model.context_length, "max_seconds": model.max_seconds, "tiny": model.is_tiny}
    if isinstance(model, ModelPair):
        row |= {"mmproj": str(model.projector), "architecture": model.architecture}
        row |= {"projector_type": model.projector_type, "music_flamingo": is_music_flamingo(model.language_model)}
    elif isinstance(model, Checkpoint):
        row |= {"checkpoint": model.name, "architecture": model.model_type, "reasons": model.reasons}
    return row | facts


def good_line(model: Model) -> str:
    """Return the line of `models check` for a model that passed."""
    remark = _TINY_REMARK if model.is_tiny else ""
    if isinstance(model, ModelPair):
        remark = remark or ("" if is_music_flamingo(model.language_model) else ", not Music Flamingo")
        kind = f"{model.name} + {model.projector_name}: {model.architecture} with {model.projector_type}"
        return f"{kind}, {model.context_length} tokens{remark}, ok"
    remark = remark or (", reasons before it answers" if model.reasons else "")
    kind = f"{model.name}: {model.model_type}" if isinstance(model, Checkpoint) else model.name
    return f"{kind}, {model.context_length} tokens, {model.max_seconds:.0f} s of audio{remark}, ok"
