"""`musicflamingo chat`: follow-up questions about a track, typed, piped or given as options."""

import io
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from musicflamingo_cli.cli import app
from musicflamingo_cli.cli.options import Common, Json, command, console_for
from musicflamingo_cli.cli.placement import ConversationOptions
from musicflamingo_cli.errors import ConfigError, ExitCode

if TYPE_CHECKING:
    from musicflamingo_cli.cli.chat_session import Session

_MANY = 100  # questions that an engine is opened for: how many will come is not known


@command(app)
def chat(
    options: ConversationOptions,
    common: Common,
    json: Json,
    audio: Annotated[
        list[Path] | None,
        typer.Argument(help="Audio files, for one conversation; none: in words only.", metavar="AUDIO"),
    ] = None,
    questions: Annotated[
        list[str] | None,
        typer.Option("--ask", help="A question, repeatable: ask these, then end.", metavar="TEXT", show_default=False),
    ] = None,
) -> None:
    """Ask question after question about a track; its audio is processed once for the whole conversation."""
    from musicflamingo_cli.captioning.captioner import open_captioner
    from musicflamingo_cli.captioning.conversation import Chat
    from musicflamingo_cli.cli.chat_session import Session
    from musicflamingo_cli.cli.outcomes import announce
    from musicflamingo_cli.cli.presets import require_files
    from musicflamingo_cli.prompts import load_presets, prompts_files
    from musicflamingo_cli.types import Workload

    console = console_for(common, json.as_json)
    audio = audio or []
    require_files(audio)
    settings = options.settings(common, audio)
    presets = load_presets(prompts_files(audio[0] if audio else None, settings.prompts))
    workload = Workload(tracks=1, prompts=_MANY, is_conversation=True)
    try:
        with open_captioner(settings, workload) as captioner, Chat(captioner, audio) as conversation:
            announce(console, captioner)
            for note in conversation.notes:
                console.info(note)
            session = Session(console, conversation, captioner, presets, audio)
            if questions:
                for question in questions:
                    session.ask(question)
            elif sys.stdin.isatty():
                _talk(session)
            else:
                _answer_lines(session)
    except KeyboardInterrupt as error:
        console.warn("interrupted")
        raise typer.Exit(ExitCode.INTERRUPTED) from error


def _talk(session: "Session") -> None:
    """Answer what a person types, until the end."""
    from musicflamingo_cli.cli.typing_line import Interrupts, LineCleared, TypedLines
    from musicflamingo_cli.paths import user_state_dir

    session.greet()
    is_edited = sys.stdout.isatty() and not session.console.as_json
    was_cleared = False
    with TypedLines(user_state_dir() / "chat-history", is_edited) as lines, Interrupts(lines.has_text) as interrupts:
        while True:
            try:
                with interrupts.at_prompt():
                    line = lines.read()
            except LineCleared as cleared:
                if was_cleared or not cleared.had_text:
                    session.hint_how_to_leave()
                was_cleared = True
                continue
            except EOFError:
                return
            was_cleared = False
            if not session.handle_typed(line, interrupts):
                return


def _answer_lines(session: "Session") -> None:
    """Answer the lines of a pipe or a file. Raises ConfigError where there is none."""
    is_empty = True
    for line in _piped_lines():
        is_empty = False
        if not session.handle(line):
            return
    if is_empty:
        raise ConfigError(
            "there is no question", "for example: musicflamingo chat song.flac --ask 'Which key is it in?'"
        )


def _piped_lines() -> Iterator[str]:
    if isinstance(sys.stdin, io.TextIOWrapper):
        sys.stdin.reconfigure(errors="strict")  # not so in the locale "C"
    try:
        yield from filter(None, map(str.strip, sys.stdin))
    except UnicodeDecodeError as error:
        raise ConfigError("the questions are not UTF-8 text", "convert them, for example with iconv") from error
