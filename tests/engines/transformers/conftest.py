"""Checkpoints that are small enough for tests, and the published recipe as what answers are held against."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pytest
import soundfile

from musicflamingo_cli.models.model import Checkpoint
from musicflamingo_cli.models.resolve import tiny_language_model
from musicflamingo_cli.models.tiny_checkpoint import write_checkpoint
from musicflamingo_cli.types import Clip, Prompt

KINDS = ("tiny", "tiny as MusicFlamingo", "random 2601", "random AF-Next")


@pytest.fixture(scope="session")
def checkpoints(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Checkpoint]:
    """One checkpoint of each kind: the tiny model, and random weights in the newer class."""
    from tiny_flamingo.random_checkpoint import write_random_checkpoint

    folder = tmp_path_factory.mktemp("checkpoints")
    language_model = tiny_language_model()
    (projector,) = language_model.parent.glob("*mmproj*.gguf")
    write_checkpoint(language_model, projector, folder / KINDS[0])
    write_checkpoint(language_model, projector, folder / KINDS[1], as_music_flamingo=True)
    write_random_checkpoint(folder / KINDS[2], "musicflamingo")
    write_random_checkpoint(folder / KINDS[3], "musicflamingo", max_audio_seconds=1800)
    return {
        kind: Checkpoint(
            folder=folder / kind, name=kind, model_type="musicflamingo", context_length=32768, max_seconds=1200.0
        )
        for kind in KINDS
    }


class Recipe:
    """A checkpoint as its documentation uses it: `apply_chat_template`, then `generate`, greedily."""

    def __init__(self, checkpoint: Checkpoint) -> None:
        import torch
        from transformers import AutoModelForSeq2SeqLM, AutoProcessor

        torch.set_num_threads(1)
        self.processor = AutoProcessor.from_pretrained(checkpoint.folder)
        self.model = AutoModelForSeq2SeqLM.from_pretrained(checkpoint.folder).eval()

    def answer(self, clip: Clip, prompt: Prompt) -> str:
        """One question about one clip."""
        return self.converse(clip, [prompt.text], [], prompt.max_tokens)

    def converse(self, clip: Clip, questions: Sequence[str], answers: Sequence[str], limit: int) -> str:
        """The last of several questions; ``answers`` are those to the others."""
        said: list[dict[str, Any]] = []
        for number, question in enumerate(questions):
            heard = clip.all if number == 0 else ()
            audio = [{"type": "audio", "audio": soundfile.read(each.path, dtype="float32")[0]} for each in heard]
            said.append({"role": "user", "content": [{"type": "text", "text": question}, *audio]})
            if number < len(answers):
                said.append({"role": "assistant", "content": [{"type": "text", "text": answers[number]}]})
        inputs = self.processor.apply_chat_template(said, tokenize=True, add_generation_prompt=True, return_dict=True)
        made = self.model.generate(
            **inputs,
            max_new_tokens=limit,
            do_sample=False,
            repetition_penalty=1.0,
            temperature=1.0,
            top_p=1.0,
            top_k=50,
        )
        (text,) = self.processor.batch_decode(made[:, inputs.input_ids.shape[1] :], skip_special_tokens=True)
        return str(text)
