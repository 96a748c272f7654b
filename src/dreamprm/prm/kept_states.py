"""All of a model but its last feed-forward block, frozen; what it gives at the judged tokens is computed once and kept.

    h = x + MLP(norm(x)),   log-odds = head(final norm(h)),

x the residual stream at a judged token after the last layer's attention. What is trained lies behind the last
attention, where a token no longer sees others: a chain is its S judged tokens, whatever its length and images, and an
update costs what S tokens cost in one block. Scores are those of the whole pass.

Shapes: B chains, S steps, H hidden width.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn.utils.rnn import pad_sequence

from dreamprm.prm.collate import Batch
from dreamprm.prm.feature_cache import FeatureStore, content_name
from dreamprm.prm.frozen import layer_list
from dreamprm.prm.heads import gather_steps

__all__ = ["KeptStates"]

# Of the hidden states by both ways, per unit of (1 + |state|): the same sums in another shape; 16 bits round at 1e-2.
_TOLERANCE = {torch.float32: 1e-4, torch.float64: 1e-9}
_LOW_PRECISION = 0.1
_OTHER_NORMS = ("pre_feedforward_layernorm", "post_feedforward_layernorm")


class KeptStates:
    """Freezes `body` but for its last feed-forward block and its final norm, and keeps x of every chain.

    body: a transformers model whose layers are x + MLP(post_attention_layernorm(x)) behind their attention, as those of
        Llama, Qwen and InternVL are; the first pass is compared with the whole model's.
    folder: where states are kept between runs too, in safetensors; None keeps them in memory only.
    Raises ValueError for a model of another build.
    """

    def __init__(self, body: nn.Module, *, folder: str | Path | None = None) -> None:
        name, layers = layer_list(body)
        text = body.get_submodule(name.rpartition(".")[0]) if "." in name else body
        last: Any = layers[-1]
        norm: Any = getattr(text, "norm", None)
        parts = [norm, getattr(last, "mlp", None), getattr(last, "post_attention_layernorm", None)]
        if not all(isinstance(part, nn.Module) for part in parts) or any(hasattr(last, odd) for odd in _OTHER_NORMS):
            raise ValueError(
                f"{type(body).__name__}: its layers are not x + mlp(post_attention_layernorm(x)) with a final norm; "
                "set model.trained=whole, with model.freeze_layers"
            )
        self.body, self.last, self.norm = body, last, norm
        body.requires_grad_(False)
        for part in (last.mlp, last.post_attention_layernorm, self.norm):
            part.requires_grad_(True)
        self.compared = False
        below = [value for value in body.parameters() if not value.requires_grad]
        inside = None if folder is None else Path(folder) / content_name(*below, note="states")
        self.store = FeatureStore(inside)

    def hidden(self, run: Callable[[Mapping[str, Any]], Any], inputs: Mapping[str, Any], batch: Batch) -> Tensor:
        """What the final norm gives at the judged tokens, (B, S, H).

        run: (inputs) -> the body's output, a whole pass; called without gradients for chains that are not kept.
        """
        states = self._states(run, inputs, batch)
        return self.norm(states + self.last.mlp(self.last.post_attention_layernorm(states)))

    def _states(self, run: Any, inputs: Mapping[str, Any], batch: Batch) -> Float[Tensor, "B S H"]:
        lengths = batch.step_mask.sum(1).tolist()
        device = batch.step_mask.device
        if not batch.encoded:  # a batch that no collator made: nothing is known to keep it by
            return self._run_below(run, inputs, batch)
        cast = torch.get_autocast_dtype(device.type) if torch.is_autocast_enabled(device.type) else "none"
        names = [f"{each.name} {cast}" for each in batch.encoded]

        def compute(missing: list[int]) -> Sequence[Tensor]:
            found = self._run_below(run, inputs, batch)
            return [found[row, : lengths[row]] for row in missing]

        kept = self.store.take(names, compute)
        padded = pad_sequence([value.to(device) for value in kept], batch_first=True)
        return nn.functional.pad(padded, (0, 0, 0, batch.step_mask.shape[1] - padded.shape[1]))

    @torch.no_grad()
    def _run_below(self, run: Any, inputs: Mapping[str, Any], batch: Batch) -> Float[Tensor, "B S H"]:
        caught: list[Tensor] = []

        def catch(norm: nn.Module, given: tuple[Any, ...]) -> None:
            caught.append(given[0])

        handle = self.last.post_attention_layernorm.register_forward_pre_hook(catch)
        was_training = self.body.training
        self.body.eval()
        try:
            whole = run(inputs).last_hidden_state
            states = gather_steps(caught.pop(), batch.step_positions)
            if not self.compared:
                self._compare(states, gather_steps(whole, batch.step_positions), batch.step_mask)
        finally:
            handle.remove()
            self.body.train(was_training)
        return states * batch.step_mask[..., None]

    def _compare(self, states: Tensor, whole: Tensor, mask: Tensor) -> None:
        """Raises ValueError where the block on kept states does not give what the whole pass gives."""
        ours = self.norm(states + self.last.mlp(self.last.post_attention_layernorm(states)))
        allowed = _LOW_PRECISION
        if not torch.is_autocast_enabled(states.device.type):
            allowed = _TOLERANCE.get(states.dtype, _LOW_PRECISION)
        worst = (((ours - whole).abs() / (1 + whole.abs()))[mask]).max().item()
        if not worst <= allowed:
            raise ValueError(
                f"{type(self.body).__name__}: its last feed-forward block on kept states differs by {worst:.2g} from "
                f"the whole pass (relative, {allowed:g} allowed); set model.trained=whole, with model.freeze_layers"
            )
        self.compared = True
