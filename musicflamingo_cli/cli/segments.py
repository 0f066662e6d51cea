"""`batch --segments`: captions of segments instead of whole tracks."""

# No `from __future__ import annotations` here: Typer reads the annotations as objects.

import dataclasses
from typing import TYPE_CHECKING, Annotated, Any

import typer

from musicflamingo_cli.choices import Alignment
from musicflamingo_cli.errors import ConfigError

if TYPE_CHECKING:
    from musicflamingo_cli.audio.segments import Cutting
    from musicflamingo_cli.config import Settings


def _flag(*names: str, help: str, **more: Any) -> Any:
    return typer.Option(*names, help=help, rich_help_panel="Segments", show_default=False, **more)


@dataclasses.dataclass(frozen=True)
class SegmentOptions:
    """How tracks are cut into segments, if they are."""

    segments: Annotated[
        float | None,
        _flag("--segments", help="Caption segments of S seconds, not whole tracks.", metavar="S", min=2, max=1800),
    ] = None
    hop: Annotated[
        float | None,
        _flag("--hop", help="Begin a segment every S seconds.  \\[default: as --segments]", metavar="S", min=1),
    ] = None
    align: Annotated[
        Alignment | None, _flag("--align", help="Move the cuts to the nearest beat of the measured tempo.")
    ] = None
    summary: Annotated[
        bool, _flag("--summary", help="Also summarise each track from the captions of its segments, without audio.")
    ] = False

    def cutting(self, settings: "Settings") -> "Cutting | None":
        """Return how tracks are cut, None for whole tracks. Raises ConfigError for an option that needs another one."""
        from musicflamingo_cli.audio.segments import Cutting

        if self.segments is None:
            for name, value in (("--hop", self.hop), ("--align", self.align), ("--summary", self.summary)):
                if value:
                    raise ConfigError(f"{name} is about segments", f"for example: --segments 30 {name} ...")
            return None
        return Cutting(
            seconds=self.segments,
            hop=self.hop or self.segments,
            align=self.align,
            start=settings.start,
            fraction=settings.fraction,
            max_seconds=settings.max_seconds,
        )

    def refuse_others(self, given: dict[str, object]) -> None:
        """Raise ConfigError for options, by name, that do not go together with --segments."""
        if self.segments is not None and (named := [name for name, value in given.items() if value]):
            raise ConfigError(f"{named[0]} is not available with --segments", "leave one of them out")
