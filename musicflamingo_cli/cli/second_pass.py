"""`--fields` and `--short` of `caption` and `batch`: what is made of the captions by a second pass without audio."""

# No `from __future__ import annotations` here: Typer reads the annotations as objects.

import dataclasses
from collections.abc import Iterable
from typing import TYPE_CHECKING, Annotated, Any

import typer

from musicflamingo_cli.errors import ConfigError, SidecarError

if TYPE_CHECKING:
    from musicflamingo_cli.captioning.captioner import Captioner
    from musicflamingo_cli.captioning.second_pass import Derived, Wanted
    from musicflamingo_cli.cli.console import Console
    from musicflamingo_cli.types import Track


def _flag(*names: str, help: str, **more: Any) -> Any:
    return typer.Option(*names, help=help, rich_help_panel="From the captions", show_default=False, **more)


@dataclasses.dataclass(frozen=True)
class SecondPassOptions:
    """What is made of the captions."""

    fields: Annotated[
        bool, _flag("--fields", help="Also extract genre, tempo, key and more from the captions, as JSON.")
    ] = False
    short: Annotated[
        int | None,
        _flag("--short", help="Also make a version of at most N T5 tokens.", metavar="N", min=8, max=512),
    ] = None

    def wanted(self, engine: str, summary: bool = False) -> "Wanted | None":
        """Return what is wanted, if anything is. Raises ConfigError for the setting of an engine that cannot.

        ``summary``: a summary of each track's segments, too.
        """
        from musicflamingo_cli.captioning.second_pass import Wanted
        from musicflamingo_cli.choices import EngineName

        if not self.fields and self.short is None and not summary:
            return None
        if engine == EngineName.MTMD_CLI:
            raise ConfigError(
                f"{'--summary asks' if summary else '--fields and --short ask'} without audio, which mtmd-cli cannot",
                "leave --engine out, or use: --engine server, native or embedded",
            )
        return Wanted(self.fields, self.short, summary)

    def wanted_in_batch(self, engine: str, ray: str | None, save: bool, summary: bool = False) -> "Wanted | None":
        """Do as ``wanted``; also raises ConfigError with a cluster, and where no captions are saved."""
        if (wanted := self.wanted(engine, summary)) is None or wanted.summary:
            return wanted
        if ray is not None:
            raise ConfigError("--fields and --short are not available with --ray", "add them in a run without --ray")
        if not save:
            raise ConfigError("--fields and --short need captions in the sidecars", "add --save-as NAME to --ask")
        return wanted


def derive_all(
    console: "Console", captioner: "Captioner", wanted: "Wanted", tracks: "Iterable[Track]", overwrite: bool
) -> int:
    """Make and save what is ``wanted`` of tracks' captions; return how many tracks failed."""
    from musicflamingo_cli.captioning.second_pass import Derived, SecondPass
    from musicflamingo_cli.captioning.worker_pool import WorkerPool
    from musicflamingo_cli.sidecars.claims import claimed
    from musicflamingo_cli.sidecars.merge import read_sidecar
    from musicflamingo_cli.types import Failure

    second = SecondPass(captioner, wanted, overwrite)

    def work(track: "Track") -> "tuple[Track, Derived]":
        derived = Derived()
        try:
            with claimed(track.sidecar) as is_ours:
                if is_ours:
                    info = read_sidecar(track.sidecar)
                    derived = second.derive(info)
                    second.save(track, info, derived)
        except SidecarError as error:
            derived.failures.append(Failure.for_track(error))
        return track, derived

    made = failed = 0
    with WorkerPool(work, lambda: captioner.slots) as pool:
        try:
            for track, derived in pool.results(tracks):
                made += bool(derived.values)
                failed += bool(derived.failures)
                show_derived(console, track, derived, derived.values)
        except BaseException:
            captioner.close()
            raise
    what = "summaries" if wanted.summary else "fields or short versions"
    console.info(f"second pass: {made} tracks with new {what}, {failed} failed")
    return failed


def show_derived(console: "Console", track: "Track", derived: "Derived", values: "dict[str, Any]") -> None:
    """Show what failed, and with --json what was made."""
    for failure in derived.failures:
        console.track_failed(failure, track.audio)
    if values or derived.failures:
        failures = [{"preset": f.preset, "reason": f.reason, "hint": f.hint} for f in derived.failures]
        console.json({"track": str(track.audio), "second_pass": values, "failures": failures})
