"""`musicflamingo check --samples`: the model is asked again for each caption."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

from musicflamingo_cli.captioning.captioner import open_captioner
from musicflamingo_cli.captioning.samples import learn_habits, sample_tracks, wanted
from musicflamingo_cli.cli.console import Console
from musicflamingo_cli.cli.options import Common, ModelOptions
from musicflamingo_cli.cli.outcomes import announce
from musicflamingo_cli.cli.presets import datasets_to_ask
from musicflamingo_cli.dataset.tracks import find_tracks
from musicflamingo_cli.errors import ConfigError, SidecarError
from musicflamingo_cli.models.resolve import resolve_model
from musicflamingo_cli.prompts import Preset
from musicflamingo_cli.sidecars.merge import read_sidecar
from musicflamingo_cli.types import Skipped, Track, Workload


def ask_for_samples(
    console: Console, options: ModelOptions, common: Common, folders: Sequence[Path], number: int, follow_links: bool
) -> None:
    """Ask ``number`` times about every track with a caption of this model, and save how far the answers agree.

    What has as many answers is not asked again. Raises ConfigError, ModelError and ToolMissingError.
    """
    settings = options.settings(common, folders)
    if settings.temperature == 0:
        raise ConfigError("--samples needs different answers, which --temperature 0 does not give", "raise it")
    model = resolve_model(settings)
    datasets = datasets_to_ask(options, settings, folders)
    presets = {preset.name: preset for dataset in datasets for preset in dataset.presets}

    def tracks() -> Iterator[tuple[Track, Sequence[Preset]]]:
        for dataset in datasets:
            for item in find_tracks(dataset.root, follow_links=follow_links):
                if isinstance(item, Skipped):
                    continue
                try:
                    asked = wanted(read_sidecar(item.sidecar), dataset.presets, model.name, number)
                except SidecarError:  # the check reports it
                    continue
                if asked:
                    yield item, asked

    total = sum(1 for _ in tracks())
    if not total:
        console.info(f"no caption of {model.name} needs {number} answers")
        return
    with open_captioner(settings, Workload(total, number * len(presets)), model) as captioner:
        announce(console, captioner)
        if learnt := learn_habits(captioner, list(presets.values())):
            console.info(f"asked about silence and noise: {', '.join(learnt)}")
        for index, sampled in enumerate(sample_tracks(captioner, tracks(), number), 1):
            if sampled.failure:
                console.track_failed(sampled.failure, sampled.track.audio)
            else:
                console.info(
                    f"[{index}/{total}] {number} answers to {', '.join(sampled.presets)}: {sampled.track.audio}"
                )
