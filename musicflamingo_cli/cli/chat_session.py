"""What happens in `musicflamingo chat` with a line: a question is answered, a command such as /save is carried out."""

from __future__ import annotations

import sys
from collections.abc import Callable, Mapping, Sequence
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING

from musicflamingo_cli.captioning.captioner import Captioner
from musicflamingo_cli.captioning.conversation import Chat
from musicflamingo_cli.cli.console import Console, duration, printable, write_message
from musicflamingo_cli.dataset.tracks import track_for
from musicflamingo_cli.errors import AnswerCancelledError, ConfigError, TrackError, suggestion
from musicflamingo_cli.prompts import Preset, choose
from musicflamingo_cli.sidecars.captions import caption_key

if TYPE_CHECKING:
    from musicflamingo_cli.cli.typing_line import Interrupts


class Command(StrEnum):
    """What a line can begin with, if it is no question."""

    HELP = "/help"
    PROMPT = "/prompt"
    SEED = "/seed"
    SAVE = "/save"
    FORGET = "/forget"
    QUIT = "/quit"


_HELP = {
    "/prompt": "list the presets",
    "/prompt NAME": "ask a preset's text",
    "/seed N": "sample the next answers with another seed",
    "/save NAME": "save the last answer into the sidecar, as the caption of preset NAME",
    "/forget": "start a new conversation about the same audio",
    "/help": "show this list",
    "/quit": "leave, as Ctrl-D does; Ctrl-C stops an answer",
}


class Session:
    """A conversation on the screen."""

    def __init__(
        self,
        console: Console,
        chat: Chat,
        captioner: Captioner,
        presets: Mapping[str, Preset],
        audio: Sequence[Path],
    ) -> None:
        self.console = console
        self._chat = chat
        self._captioner = captioner
        self._presets = presets
        self._audio = audio
        # Only for a person: where the engine dies and repeats an answer, a file must not hold it twice.
        self._is_streamed = sys.stdout.isatty() and not console.as_json

    def greet(self) -> None:
        """Show what the conversation is about, and how to get help."""
        names = ", ".join(path.name for path in self._audio)
        about = f"{names}, {duration(self._chat.seconds)} of audio; " if names else ""
        self.console.info(f"{about}/help lists the commands, Ctrl-D ends")

    def hint_how_to_leave(self) -> None:
        """Show how to leave, to a person who presses Ctrl-C at the prompt."""
        write_message("to leave, press Ctrl-D or type /quit")

    def handle_typed(self, line: str, interrupts: Interrupts) -> bool:
        """Do as ``handle`` does, and show errors that do not end the conversation."""
        try:
            with interrupts.during_answer() as check:
                return self.handle(line, check)
        except AnswerCancelledError:
            self.console.info("stopped: this question is not part of the conversation")
        except (TrackError, ConfigError) as error:
            self.console.fail(error)
        return True

    def handle(self, line: str, check: Callable[[], None] | None = None) -> bool:
        """Answer a question or carry out a command; return whether the conversation goes on.

        ``check`` is called with each piece of an answer, and may raise AnswerCancelledError. Raises the errors of Chat,
        ConfigError for an unknown command.
        """
        word, _, rest = line.strip().partition(" ")
        if not word.startswith("/"):
            if word:
                self.ask(line.strip(), check)
            return True
        if word not in list(Command):
            raise ConfigError(f"no command {word!r}{suggestion(word, list(Command))}", "see: /help")
        return self._carry_out(Command(word), rest.strip(), check)

    def ask(self, question: str | Preset, check: Callable[[], None] | None = None) -> None:
        """Print the answer to a question; on a terminal as it is made."""
        shown = ""

        def show(text: str) -> None:
            nonlocal shown
            if check:
                check()
            if self._is_streamed:
                text = text if shown else text.lstrip()
                shown += text
                self.console.stream(text)

        try:
            text = self._chat.ask(question, show if self._is_streamed or check else None)
        finally:
            if shown:
                self.console.data("")
        if not shown:
            self.console.data(printable(text))
        answer = self._chat.answers[-1]
        if answer.hit_limit:
            self.console.info(f"the answer reached its limit of {answer.prompt.max_tokens} tokens")
        self.console.json(
            {
                "tracks": [str(path) for path in self._audio],
                "question": answer.prompt.text,
                "answer": text,
                "seconds": round(answer.seconds, 3),
                "tokens": answer.answer_tokens,
                "audio_tokens": answer.audio_tokens,
                "engine": self._captioner.engine.name,
                "model": self._captioner.model.name,
            }
        )

    def _carry_out(self, command: Command, argument: str, check: Callable[[], None] | None) -> bool:
        match command:
            case Command.QUIT:
                return False
            case Command.HELP:
                for name, meaning in _HELP.items():
                    write_message(f"{name:14} {meaning}")
            case Command.PROMPT:
                self._ask_preset(argument, check)
            case Command.SEED:
                self._set_seed(argument)
            case Command.SAVE:
                self._save(argument)
            case Command.FORGET:
                self._chat.forget()
                self.console.info("a new conversation about the same audio")
        return True

    def _ask_preset(self, name: str, check: Callable[[], None] | None) -> None:
        if name:
            self.ask(choose(self._presets, [name])[0], check)
            return
        for preset in self._presets.values():
            write_message(f"{preset.name:16} {preset.prompt}")

    def _set_seed(self, text: str) -> None:
        if text:
            if not text.isdecimal():
                raise ConfigError(f"{text!r} is not a whole number", "for example: /seed 7")
            self._chat.seed = int(text)
        write_message(f"seed {self._chat.seed}")

    def _save(self, name: str) -> None:
        if not name:
            raise ConfigError("/save needs a name", "for example: /save mood")
        self._chat.save(name)
        self.console.info(f"saved: {track_for(self._audio[0]).sidecar}, as {caption_key(name)}")
