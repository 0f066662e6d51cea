"""The model: Audio Flamingo 3's own classes with a tiny configuration, and the heads that train its encoder."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from transformers import AudioFlamingo3Config, AudioFlamingo3ForConditionalGeneration

from tiny_flamingo import music
from tiny_flamingo.mel import BINS

WIDTH, ENCODER_LAYERS, LAYERS, HEADS = 128, 5, 3, 4
POSITIONS = 1500  # of the encoder: 3000 mel frames, halved by the second convolution
CONTEXT = 32768  # 1200 s of audio: 40 windows of 750 tokens, and the answer
SCORE_ROWS = 12 + 12 + 5  # what music.Score holds of each frame


def config(
    vocabulary: int, audio_token: int, end: int, pad: int, encoder_layers: int = ENCODER_LAYERS
) -> AudioFlamingo3Config:
    return AudioFlamingo3Config(
        audio_config={
            "num_mel_bins": BINS,
            "hidden_size": WIDTH,
            "num_hidden_layers": encoder_layers,
            "num_attention_heads": HEADS,
            "intermediate_size": 4 * WIDTH,
            "max_source_positions": POSITIONS,
        },
        text_config={
            "model_type": "qwen2",
            "vocab_size": vocabulary,
            "hidden_size": WIDTH,
            "intermediate_size": 3 * WIDTH,
            "num_hidden_layers": LAYERS,
            "num_attention_heads": HEADS,
            "num_key_value_heads": HEADS,
            "max_position_embeddings": CONTEXT,
            "rope_theta": 10000.0,
            "tie_word_embeddings": False,
            "eos_token_id": end,
            "pad_token_id": pad,
            "bos_token_id": None,
        },
        audio_token_id=audio_token,
        tie_word_embeddings=False,  # Audio Flamingo 3's class would not tie them, whatever is said here
    )


def new_model(settings: AudioFlamingo3Config) -> AudioFlamingo3ForConditionalGeneration:
    model = AudioFlamingo3ForConditionalGeneration(settings)
    tower = encoder_of(model)
    with torch.no_grad():
        tower.embed_positions.weight.copy_(position_waves(POSITIONS))
    return model


def encoder_of(model: AudioFlamingo3ForConditionalGeneration) -> nn.Module:
    return model.model.audio_tower


# Radians in 20 ms. The slow ones tell near from far; the others are the rates of beats and eighths, 1.8 to 5.7 Hz.
SLOW = (0.002, 0.004, 0.008, 0.016)
MUSICAL = tuple(0.22 + index / 30 for index in range(16))
WAVES = 2 * (len(SLOW) + len(MUSICAL))  # the columns that hold positions: a sine and a cosine of each rate
CLEAN_LAYERS = 2  # those that leave these columns alone


def position_waves(positions: int, width: int = WIDTH) -> Tensor:
    """(positions, width): sines, then cosines, at slow and at musical rates; the other columns are zero.

    Whisper's own are spread over four decades, for speech. Attention that weighs these by onsets computes the Fourier
    transform of the onsets at musical rates, which is what a tempo is. What sounds is kept to the other columns until
    that has been done: mixed with it, positions can no longer be read.
    """
    angles = torch.arange(positions)[:, None] * torch.tensor([*SLOW, *MUSICAL])[None, :]
    return torch.cat([angles.sin(), angles.cos(), torch.zeros(positions, width - WAVES)], dim=1)


@torch.no_grad()
def keep_positions_clean(tower: nn.Module) -> None:
    """Let nothing before the third layer write into the columns of positions. Call it after every step."""
    for writer in [tower.conv2, *(part for layer in tower.layers[:CLEAN_LAYERS] for part in _writers(layer))]:
        writer.weight[:WAVES] = 0.0
        writer.bias[:WAVES] = 0.0


def _writers(layer: nn.Module) -> tuple[nn.Module, nn.Module]:
    return layer.self_attn.out_proj, layer.fc2


def hear(tower: nn.Module, mel: Tensor, first: int = 0) -> tuple[Tensor, Tensor]:
    """The encoder over (batch, 128, frames) of any length up to 30 s, as its own ``forward`` does it for 30 s.

    Returns the hidden states after the first layers, (batch, frames / 2, width), and the encoder's output,
    (batch, frames / 4, width).
    """
    x = F.gelu(tower.conv1(mel))
    x = F.gelu(tower.conv2(x)).transpose(1, 2)
    x = x + tower.embed_positions.weight[first : first + x.shape[1]]
    middle = x
    for index, layer in enumerate(tower.layers):
        if index == CLEAN_LAYERS:
            middle = x
        x = layer(x, None)
    x = tower.avg_pooler(x.transpose(1, 2)).transpose(1, 2)
    return middle, tower.layer_norm(x)


class Heads(nn.Module):
    """What the encoder is asked while it learns: the score of each frame, and the labels at each output token."""

    def __init__(self, width: int = WIDTH) -> None:
        super().__init__()
        self.score = nn.Sequential(nn.LayerNorm(width), nn.Linear(width, SCORE_ROWS))
        self.sizes = {name: len(values) for name, values in music.ATTRIBUTES.items()}
        self.labels = nn.Linear(width, sum(self.sizes.values()))

    def split(self, output: Tensor) -> dict[str, Tensor]:
        parts = self.labels(output).split(list(self.sizes.values()), dim=-1)
        return dict(zip(self.sizes, parts, strict=True))
