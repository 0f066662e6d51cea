"""A checkpoint asked in transformers itself, as its documentation shows: the reference for every engine's answers."""

from __future__ import annotations

import tempfile
import time
from collections.abc import Iterator
from itertools import takewhile
from pathlib import Path
from typing import Any

import soundfile
import torch
from transformers import AutoModelForSeq2SeqLM, AutoProcessor

from musicflamingo_cli import Analysis
from musicflamingo_cli.audio.clip import write_clip
from musicflamingo_cli.paths import built_in_prompts
from musicflamingo_cli.prompts import read_presets
from musicflamingo_cli.text.cleaning import judge


class InTransformers:
    """Asks the product's presets one after another, greedily; nothing is shared between two questions."""

    def __init__(self, folder: Path, threads: int = 1) -> None:
        torch.set_num_threads(threads)
        self._processor = AutoProcessor.from_pretrained(folder)
        self._model = AutoModelForSeq2SeqLM.from_pretrained(folder).eval()
        self._presets = read_presets(built_in_prompts())

    def analyze_many(self, paths: list[Path], presets: list[str]) -> Iterator[Analysis]:
        """Yield an analysis of each file, as the product's API does."""
        for path in paths:
            started = time.perf_counter()
            with tempfile.NamedTemporaryFile(suffix=".wav") as file:
                clip = write_clip(path, Path(file.name))
                samples, _ = soundfile.read(file.name, dtype="float32")
            answers = {name: self.answer(samples, self._presets[name].render({}).text) for name in presets}
            captions = {name: judge(text, False, 3).text for name, text in answers.items()}
            yield Analysis(path, captions, (), clip.seconds, time.perf_counter() - started)

    @torch.inference_mode()
    def answer(self, samples: Any, question: str, tokens: int = 200) -> str:
        """Answer a question about mono samples at 16 kHz."""
        inputs = self._inputs(samples, question)
        outputs = self._model.generate(**inputs, max_new_tokens=tokens, do_sample=False, repetition_penalty=1.0)
        answers = self._processor.batch_decode(outputs[:, inputs.input_ids.shape[1] :], skip_special_tokens=True)
        return str(answers[0])

    @torch.inference_mode()
    def gap(self, samples: Any, question: str, answer: str, other: str) -> float:
        """Return by how much the model prefers ``answer`` to ``other``: in logits, where their tokens first differ."""
        ours, theirs = (self._processor.tokenizer(text).input_ids for text in (answer, other))
        same = len(list(takewhile(lambda pair: pair[0] == pair[1], zip(ours, theirs, strict=False))))
        inputs = self._inputs(samples, question)
        inputs["input_ids"] = torch.cat([inputs.input_ids, torch.tensor([ours[:same]], dtype=torch.long)], dim=1)
        inputs["attention_mask"] = torch.ones_like(inputs.input_ids)
        logits = self._model(**inputs).logits[0, -1]
        end = self._processor.tokenizer.eos_token_id
        first, second = (tokens[same] if same < len(tokens) else end for tokens in (ours, theirs))
        return float(logits[first] - logits[second])

    @torch.inference_mode()
    def embeddings(self, samples: Any) -> Any:
        """Return the audio tokens' embeddings before the language model, shape (tokens, width)."""
        inputs = self._inputs(samples, "")
        made = self._model.get_audio_features(inputs.input_features, inputs.input_features_mask, return_dict=True)
        return made.pooler_output.numpy()

    def _inputs(self, samples: Any, question: str) -> Any:
        content = [{"type": "text", "text": question}, {"type": "audio", "audio": samples}]
        inputs = self._processor.apply_chat_template(
            [{"role": "user", "content": content}], tokenize=True, add_generation_prompt=True, return_dict=True
        )
        return inputs.to(self._model.device, self._model.dtype)
