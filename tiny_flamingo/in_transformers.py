"""The trained model in transformers, greedily: what llama.cpp's answers are held against."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from pathlib import Path

import soundfile
import torch
from torch import Tensor
from transformers import AudioFlamingo3ForConditionalGeneration, PreTrainedTokenizerFast, WhisperFeatureExtractor

from musicflamingo_cli import Analysis
from musicflamingo_cli.audio.clip import write_clip
from musicflamingo_cli.paths import built_in_prompts
from musicflamingo_cli.prompts import read_presets
from musicflamingo_cli.text.cleaning import judge
from musicflamingo_cli.types import SAMPLE_RATE
from tiny_flamingo import tokens
from tiny_flamingo.mel import BINS
from tiny_flamingo.model import hear


class InTransformers:
    """Asks the presets as the product does, with the model of ``tell.py`` instead of its GGUF pair.

    The mel spectrogram is transformers' own. Audio of one window: longer clips are not its business.
    """

    def __init__(self, folder: Path) -> None:
        self._model = AudioFlamingo3ForConditionalGeneration.from_pretrained(folder).eval()
        self._tokenizer = PreTrainedTokenizerFast.from_pretrained(folder)
        self._mel = WhisperFeatureExtractor(feature_size=BINS)
        self._presets = read_presets(built_in_prompts())

    def analyze_many(self, paths: list[Path], presets: list[str]) -> Iterator[Analysis]:
        for path in paths:
            audio, seconds = self._audio(path)
            said = {name: self._answer(audio, self._presets[name].render({}).text) for name in presets}
            yield Analysis(path, {name: judge(text, False, 3).text for name, text in said.items()}, (), seconds, 0.0)

    @torch.inference_mode()
    def _audio(self, path: Path) -> tuple[Tensor, float]:
        """What the language model gets of it, (1, 750, width), and its length in seconds."""
        with tempfile.NamedTemporaryFile(suffix=".wav") as file:
            clip = write_clip(path, Path(file.name))
            samples, _ = soundfile.read(file.name, dtype="float32")
        spectrum = self._mel(samples, sampling_rate=SAMPLE_RATE, return_tensors="pt")["input_features"]
        _, heard = hear(self._model.model.audio_tower, spectrum)
        return self._model.model.multi_modal_projector(heard), clip.seconds

    @torch.inference_mode()
    def _answer(self, audio: Tensor, question: str) -> str:
        embed = self._model.model.language_model.get_input_embeddings()
        before = self._tokenizer(f"{tokens.START}user\n{tokens.SOUND}", return_tensors="pt")["input_ids"]
        text = f"{question}{tokens.END}\n{tokens.START}assistant\n"
        after = self._tokenizer(text, return_tensors="pt")["input_ids"]
        inputs = torch.cat([embed(before), audio, embed(after)], dim=1)
        said = self._model.generate(
            inputs_embeds=inputs,
            attention_mask=torch.ones(inputs.shape[:2], dtype=torch.long),
            max_new_tokens=200,
            do_sample=False,
        )
        return str(self._tokenizer.decode(said[0], skip_special_tokens=True))
