"""The model under training: a loaded checkpoint with new LoRA matrices, and the loss of one example."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import TYPE_CHECKING, Any

from musicflamingo_cli.choices import Attention, Quantization
from musicflamingo_cli.engines.transformers.model import Model
from musicflamingo_cli.finetuning.features import Encoded
from musicflamingo_cli.finetuning.plan import Example, Plan
from musicflamingo_cli.types import TOKENS_PER_WINDOW, Prompt

if TYPE_CHECKING:
    from torch import Tensor

# peft matches the whole name of a module. The output layer is among them: without it, tokens that the base model never
# says, whose rows there are alike, cannot be told apart.
_LANGUAGE_MODEL = r".*language_model\..*\.(q_proj|k_proj|v_proj|o_proj|gate_proj|up_proj|down_proj)|lm_head"
_PROJECTOR = r".*multi_modal_projector\.linear_[12]"


class Student:
    """A model with an adapter that is being trained; the rest of it stays as it is."""

    def __init__(self, plan: Plan, device: str | None = None) -> None:
        """Load the checkpoint. Raises whatever transformers and peft raise."""
        self.model = Model(
            argparse.Namespace(
                folder=plan.model,
                device=device or plan.device,
                threads=plan.threads,
                attention=Attention.SDPA,
                quantize=Quantization(plan.quantize),
                lora=None,
            )
        )
        self._plan = plan
        self.net = self.model.net

    def add_adapter(self) -> None:
        """Add the matrices to train; the encoder, whose output is known by now, is freed.

        They begin from the plan's seed, so that every process has the same.
        """
        import torch
        from peft import LoraConfig, get_peft_model, prepare_model_for_kbit_training

        settings = self._plan.settings
        target = f"{_LANGUAGE_MODEL}|{_PROJECTOR}" if settings.projector else _LANGUAGE_MODEL
        self.net.model.audio_tower = _known_output(self.net.model.audio_tower)
        if self._plan.quantize != Quantization.NONE:
            self.net = prepare_model_for_kbit_training(self.net, use_gradient_checkpointing=False)
        config = LoraConfig(
            r=settings.rank,
            lora_alpha=2 * settings.rank,
            lora_dropout=settings.dropout,
            target_modules=f"(?:{target})",
        )
        torch.manual_seed(settings.seed)
        self.adapted = get_peft_model(self.net, config)
        language_model = self.net.model.language_model
        language_model.gradient_checkpointing_enable(gradient_checkpointing_kwargs={"use_reentrant": False})

    @property
    def parameters(self) -> list[Any]:
        """What is trained."""
        return [each for each in self.adapted.parameters() if each.requires_grad]

    def loss(self, example: Example, encoded: Encoded) -> Tensor:
        """Return the mean loss over the answer's tokens and its end; nothing before the answer counts."""
        import torch
        from torch.nn.functional import cross_entropy

        model = self.model
        prompt = Prompt(preset=example.preset, text=example.question, max_tokens=1, system=example.system)
        (before,), after = model.split(prompt, 1)
        answer = torch.cat([model.ids(example.answer), torch.tensor([self._end])]).to(model.device)
        parts = [model.vectors(before)] if before else []
        parts += [self._heard(encoded), model.vectors(after)]
        parts.append(model.net.model.get_input_embeddings()(answer[:-1]))
        vectors = torch.cat(parts)[None]
        # The last token of the template predicts the first of the answer, so there are as many scores as tokens.
        scores = self.net(inputs_embeds=vectors, use_cache=False, logits_to_keep=len(answer)).logits[0]
        return cross_entropy(scores.float(), answer)

    def _heard(self, encoded: Encoded) -> Tensor:
        """Return the audio's place in a prompt as vectors, (length, width), through the projector as it is now."""
        tower = self.model.net.model.audio_tower
        _, lengths = tower._get_feat_extract_output_lengths(encoded.frames)
        tower.states = _padded(encoded, lengths, TOKENS_PER_WINDOW).to(self.model.device, self.model.dtype)
        return self.model.place(encoded.ids, None, encoded.mask)

    @property
    def _end(self) -> int:
        """The token that ends an answer: the template's own, which the tokenizer calls the end of a text."""
        return int(self.model.tokenizer.eos_token_id)

    def state(self) -> dict[str, Tensor]:
        """Return the trained matrices, as copies on the CPU."""
        from peft import get_peft_model_state_dict

        found = get_peft_model_state_dict(self.adapted, save_embedding_layers=False)
        return {name: value.detach().cpu().clone() for name, value in found.items()}

    def load_state(self, state: dict[str, Tensor]) -> None:
        """Put trained matrices back."""
        from peft import set_peft_model_state_dict

        set_peft_model_state_dict(self.adapted, state)

    def save(self, folder: Path) -> None:
        """Write the adapter as peft does, without the path of the checkpoint on this machine."""
        self.adapted.peft_config["default"].base_model_name_or_path = None
        self.adapted.save_pretrained(folder, save_embedding_layers=False)  # of the output layer, the matrices only
        (folder / "README.md").unlink(missing_ok=True)  # peft's own card; ours has what is known


def _known_output(tower: Any) -> Any:
    """Return what stands in for the audio encoder, whose output is known, in the published class's code around it.

    Its ``states``, (windows, tokens, width), are what it returns. The encoder's own weights are not kept.
    """
    import torch
    from transformers.modeling_outputs import BaseModelOutputWithPooling

    lengths = type(tower)._get_feat_extract_output_lengths

    class KnownOutput(torch.nn.Module):  # type: ignore[misc]
        states: Any = None

        def forward(self, *_: Any, **__: Any) -> Any:
            return BaseModelOutputWithPooling(last_hidden_state=self.states)

        def _get_feat_extract_output_lengths(self, input_lengths: Tensor) -> Any:
            return lengths(self, input_lengths)

    return KnownOutput()


def _padded(encoded: Encoded, lengths: Tensor, window: int) -> Tensor:
    """Return (windows, tokens, width) with zeros where there is no audio; the class's own code leaves them out."""
    states = encoded.states.new_zeros((len(lengths), window, encoded.states.shape[-1]))
    start = 0
    for row, length in enumerate(lengths.tolist()):
        states[row, :length] = encoded.states[start : start + length]
        start += length
    return states
