"""MusicGen checkpoints of random weights, about a megabyte each, in the published models' classes and layout.

    python -m tiny_flamingo.random_musicgen FOLDER --channels 2

They have the published rate (32 kHz, 50 frames a second) and codebooks (4, or 8 for stereo). What they make is noise
that differs from caption to caption.
"""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

import torch
from transformers import (
    EncodecConfig,
    MusicgenConfig,
    MusicgenDecoderConfig,
    MusicgenForConditionalGeneration,
    MusicgenMelodyConfig,
    MusicgenMelodyDecoderConfig,
    MusicgenMelodyForConditionalGeneration,
    PreTrainedTokenizerFast,
    T5Config,
)

from musicflamingo_cli.models.tiny_checkpoint import complete_folder

CODEBOOK = 64  # entries; 2048 in the published models
_LETTERS = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789 .,;:#/'()-&!?"


def write_random_musicgen(folder: Path, *, channels: int = 1, melody: bool = False, rate: int = 32_000) -> Path:
    """Write a checkpoint, the same weights every time, and return its folder; one that is there already stays.

    ``channels``: 1 or 2 (stereo). ``melody``: the class that takes a melody. ``rate``: of the audio, in Hz.
    """
    if (folder / "config.json").is_file():
        return folder
    torch.manual_seed(0)
    model = _model(channels, melody, rate)
    start = model.config.decoder.vocab_size
    options = model.generation_config
    options.decoder_start_token_id = options.pad_token_id = options.bos_token_id = start
    options.guidance_scale, options.do_sample, options.max_length = 3.0, True, 1500
    _fit_codebooks(model.audio_encoder)
    with torch.no_grad():  # what is drawn at first is nearly uniform: this way caption and guidance matter
        model.enc_to_dec_proj.weight.mul_(50.0)
        if melody:
            model.audio_enc_to_dec_proj.weight.mul_(50.0)
        for head in model.decoder.lm_heads:
            head.weight.mul_(60.0)
    with complete_folder(folder) as part:
        model.save_pretrained(part, safe_serialization=True)
        tokenizer().save_pretrained(part)
    return folder


def _fit_codebooks(codec: Any) -> None:
    """Fill the codebooks, which transformers leaves at zero, with frames of its encoder: other sound gets other codes.

    The sound is ten seconds of chords and noise, each second louder than the last.
    """
    rate = codec.config.sampling_rate
    seconds = torch.arange(10 * rate) / rate
    chord = sum(torch.sin(2 * torch.pi * 110.0 * step * (1 + seconds.floor()) * seconds) for step in (1, 2, 3))
    sound = (chord / 3 + 0.3 * torch.randn_like(seconds)) * 10 ** ((seconds.floor() - 9) / 9)
    with torch.no_grad():
        frames = codec.encoder(sound[None, None])[0].T
        for layer in codec.quantizer.layers:
            entries = frames[torch.randperm(len(frames))[:CODEBOOK]]
            layer.codebook.embed.copy_(entries)
            frames = frames - entries[torch.cdist(frames, entries).argmin(dim=1)]


def _model(channels: int, melody: bool, rate: int) -> Any:
    text = T5Config(vocab_size=128, d_model=16, d_kv=8, d_ff=32, num_layers=1, num_heads=2)
    audio = EncodecConfig(
        sampling_rate=rate,
        target_bandwidths=[4 * -(-rate // 640) * 6 / 1000],  # four codebooks of 6 bits
        upsampling_ratios=[8, 5, 4, 4],
        codebook_size=CODEBOOK,
        codebook_dim=16,
        hidden_size=16,
        num_filters=2,
        num_lstm_layers=1,
        use_causal_conv=False,
        chunk_length_s=None,
    )
    shape: dict[str, Any] = {
        "vocab_size": CODEBOOK,
        "max_position_embeddings": 2048,
        "num_hidden_layers": 2,
        "ffn_dim": 64,
        "num_attention_heads": 2,
        "hidden_size": 32,
        "num_codebooks": 4 * channels,
        "audio_channels": channels,
        "pad_token_id": CODEBOOK,
        "bos_token_id": CODEBOOK,
    }
    if melody:
        config = MusicgenMelodyConfig(
            text_encoder=text, audio_encoder=audio, decoder=MusicgenMelodyDecoderConfig(**shape), chroma_length=20
        )
        return MusicgenMelodyForConditionalGeneration(config).eval()
    config = MusicgenConfig(text_encoder=text, audio_encoder=audio, decoder=MusicgenDecoderConfig(**shape))
    return MusicgenForConditionalGeneration(config).eval()


def tokenizer() -> PreTrainedTokenizerFast:
    """Return a tokenizer of single letters in T5's form: `</s>` at the end, 512 tokens at most."""
    from tokenizers import Tokenizer
    from tokenizers.models import BPE
    from tokenizers.pre_tokenizers import Split
    from tokenizers.processors import TemplateProcessing

    vocabulary = {name: number for number, name in enumerate(["<pad>", "</s>", "<unk>", *_LETTERS])}
    letters = Tokenizer(BPE(vocab=vocabulary, merges=[], unk_token="<unk>"))
    letters.pre_tokenizer = Split(pattern="", behavior="isolated")
    letters.post_processor = TemplateProcessing(single="$A </s>", special_tokens=[("</s>", 1)])
    return PreTrainedTokenizerFast(
        tokenizer_object=letters, pad_token="<pad>", eos_token="</s>", unk_token="<unk>", model_max_length=512
    )


def main() -> None:
    """Write a checkpoint from the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--channels", type=int, choices=(1, 2), default=1)
    parser.add_argument("--melody", action="store_true")
    options = parser.parse_args()
    print(write_random_musicgen(options.folder, channels=options.channels, melody=options.melody))


if __name__ == "__main__":
    main()
