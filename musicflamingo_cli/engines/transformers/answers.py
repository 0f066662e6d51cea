"""Answers made together: one row of a batch for each question, each with its own limit, seed and end.

Where memory does not hold all of them, half as many are made at a time, down to one.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from musicflamingo_cli.engines.transformers.attention import Prefix
from musicflamingo_cli.engines.transformers.cache import empty_cache
from musicflamingo_cli.engines.transformers.model import Model
from musicflamingo_cli.engines.transformers.sampling import RowSampler, next_tokens
from musicflamingo_cli.types import Prompt

if TYPE_CHECKING:
    from torch import Tensor

_UNDECODED = "�"  # what is shown of a character whose last bytes are still to come


@dataclass(slots=True)
class Row:
    """An answer in progress. ``after``: the template's text after the audio; ``shown``: what was sent of it."""

    slot: int
    request: int
    prompt: Prompt
    prefix: Prefix
    after: str
    sampler: RowSampler
    is_streamed: bool = False
    shown: str = ""
    seconds: float = 0.0
    hit_limit: bool = False
    is_done: bool = False

    @property
    def tokens(self) -> list[int]:
        """The answer so far."""
        return self.sampler.tokens

    def forget(self) -> None:
        """Start again, after memory ran out."""
        self.sampler = RowSampler(self.sampler.sampling)


@dataclass(slots=True)
class Together:
    """Makes answers, at most ``limit`` at a time; ``limit`` falls when memory runs out, and stays there."""

    model: Model
    on_step: Callable[[Row], None]  # an answer has one token more
    on_done: Callable[[Row], None]  # it is complete, or was cancelled
    is_cancelled: Callable[[Row], bool]
    on_notice: Callable[[str], None]
    ignores_end: bool = False  # for measurements: every answer goes on to its limit
    limit: int = field(default=1 << 30)

    def answer(self, rows: Sequence[Row]) -> None:
        """Complete all rows. Raises the error of a lack of memory where not even one answer fits."""
        waiting = list(rows)
        while waiting:
            some = waiting[: self.limit]
            try:
                self._decode(some)
            except Exception as error:
                if not is_lack_of_memory(error) or len(some) == 1:
                    raise
                self.limit = len(some) // 2
                self.on_notice(f"not enough memory for {len(some)} answers at once; making {self.limit} at a time")
            release_memory(self.model.device)
            for row in waiting:
                if not row.is_done:
                    row.forget()
            waiting = [row for row in waiting if not row.is_done]

    def _decode(self, rows: Sequence[Row]) -> None:
        import torch

        started = time.monotonic()
        with torch.inference_mode():
            active = list(rows)
            cache = empty_cache(len(active[0].prefix.layers))
            scores, mask = self._read_questions(active, cache)
            while active:
                tokens = next_tokens(scores, [row.sampler for row in active])
                going = [self._goes_on(row, started) for row in active]
                if not all(going):
                    kept = [index for index, goes in enumerate(going) if goes]
                    active = [active[index] for index in kept]
                    if not active:
                        return
                    index = torch.tensor(kept, device=self.model.device)
                    cache.batch_select_indices(index)
                    mask, tokens = mask[index], [tokens[each] for each in kept]
                mask = torch.cat([mask, mask.new_ones((len(active), 1))], dim=1)
                new = torch.tensor(tokens, device=self.model.device)[:, None]
                scores = self.model.continue_from([row.prefix for row in active], cache, mask, new)

    def _read_questions(self, rows: Sequence[Row], cache: Any) -> tuple[Tensor, Tensor]:
        """Process what follows the audio, padded on the left; return the scores and the mask of these tokens."""
        import torch

        model = self.model
        questions = [model.ids(row.after) for row in rows]
        longest = max(len(ids) for ids in questions)
        ids = torch.full((len(rows), longest), model.pad, device=model.device)
        mask = torch.zeros((len(rows), longest), dtype=torch.long, device=model.device)
        for index, question in enumerate(questions):
            ids[index, longest - len(question) :] = question.to(model.device)
            mask[index, longest - len(question) :] = 1
        return model.continue_from([row.prefix for row in rows], cache, mask, ids), mask

    def _goes_on(self, row: Row, started: float) -> bool:
        """Note a row's new token; return whether it needs another one."""
        ended = row.tokens[-1] in self.model.ends and not self.ignores_end
        row.hit_limit = not ended and len(row.tokens) >= row.prompt.max_tokens
        row.is_done = ended or row.hit_limit or self.is_cancelled(row)
        if ended:
            row.tokens.pop()
        row.seconds = time.monotonic() - started
        (self.on_done if row.is_done else self.on_step)(row)
        return not row.is_done


def new_text(row: Row, text: str) -> str:
    """Return what ``text``, the answer so far, adds to what was shown; whole characters only. Notes it as shown.

    An answer that is made again, because memory ran out, adds nothing until it is longer.
    """
    whole = text.rstrip(_UNDECODED)
    if len(whole) <= len(row.shown):
        return ""
    piece = whole[len(row.shown) :]
    row.shown = whole
    return piece


def is_lack_of_memory(error: BaseException) -> bool:
    """Return whether an error means that the device's memory does not suffice."""
    import torch

    if isinstance(error, (MemoryError, torch.OutOfMemoryError)):
        return True
    text = str(error)
    known = ("can't allocate memory", "not enough memory", "out of memory", "bad_alloc", "Cannot allocate memory")
    return isinstance(error, RuntimeError) and any(each in text for each in known)


def release_memory(device: Any) -> None:
    """Give memory that nothing uses back to the device."""
    import torch

    if device.type == "cuda":
        torch.cuda.empty_cache()
