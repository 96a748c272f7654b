"""TRL's `DPOTrainer` with one learned weight per preference pair.

    class ReweightingDPOTrainer(ReweightingPreferenceMixin, DPOTrainer):
        pass

    trainer = ReweightingDPOTrainer(model, args, train_dataset=pairs, eval_dataset=trusted_pairs, …)

The pairs' losses are those of Rafailov et al., Direct Preference Optimization (arXiv:2305.18290), equation 7, and its
relatives, each by the margin of its own pair:

    m_i = log π(y⁺_i)/π_ref(y⁺_i) - log π(y⁻_i)/π_ref(y⁻_i)        ℓ_i = -log σ(β m_i)

The trusted pairs are the host's eval_dataset; a pair whose answers were exchanged gets a low weight.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from dreamprm.errors import UserError
from dreamprm.integrations.reweighting import ExampleLosses
from dreamprm.integrations.reweighting_trainer import ReweightingMixin
from dreamprm.integrations.token_table import TokenTable, tokens_of
from dreamprm.prm.aggregation import at_least_float32

__all__ = ["LOSSES", "PairTable", "ReweightingPreferenceMixin"]

if TYPE_CHECKING:
    from transformers import Trainer as _Host
else:
    _Host = object

LOSSES = ("sigmoid", "hinge", "ipo", "robust")
"""The host's `loss_type`s that are a function of one pair's margin."""

_NOT_THE_MODELS = ("completion_mask", "ref_chosen_logps", "ref_rejected_logps")


class PairTable(TokenTable):
    """2 σ(raw) per pair, which is known by the tokens of both its answers."""

    def keys(self, inputs: Mapping[str, Any]) -> list[Any]:
        """A batch has the chosen answers in its first half, the rejected in the second."""
        tokens = tokens_of(inputs)
        return list(zip(tokens[: len(tokens) // 2], tokens[len(tokens) // 2 :], strict=True))


class ReweightingPreferenceMixin(ReweightingMixin, _Host):
    """Put before `DPOTrainer`; the arguments are `ReweightingMixin`'s.

    Raises UserError for what is no loss of one pair, naming the way out.
    """

    def default_losses(self) -> ExampleLosses:
        _refuse(self)
        return self.pair_losses

    def default_weigher(self) -> nn.Module:
        """One weight per pair of train_dataset, each as the host's collator cuts it."""
        host: Any = self
        collated = (host.data_collator([row]) for row in host.train_dataset)
        return PairTable([tuple(tokens_of(batch)) for batch in collated])

    def rows_of(self, inputs: Mapping[str, Any]) -> Mapping[str, Tensor]:
        """Both answers' rows belong to their pair."""
        tokens: Tensor = inputs["input_ids"]
        pairs = torch.arange(len(tokens) // 2, device=tokens.device)
        return {"": torch.cat([pairs, pairs])}

    def pair_losses(self, model: nn.Module, inputs: Mapping[str, Any]) -> Tensor:
        """(B,): one loss per pair, whose mean is the host's."""
        host: Any = self
        ratios = _log_ratios(host, model, inputs)
        if host.loss_types[0] == "ipo":
            ratios = ratios / inputs["completion_mask"].sum(1).clamp(min=1).view(2, -1)
        loss = _LOSS_OF_MARGIN[host.loss_types[0]](ratios[0] - ratios[1], host.beta, host.label_smoothing)
        return host.loss_weights[0] * loss


def _log_ratios(host: Any, model: nn.Module, inputs: Mapping[str, Any]) -> Tensor:
    """(2, B): log π/π_ref of the chosen answers, and of the rejected."""
    given = {name: value for name, value in inputs.items() if name not in _NOT_THE_MODELS}
    logits = at_least_float32(model(**given, use_cache=False).logits[:, :-1])
    tokens = inputs["input_ids"][:, 1:]
    each = -F.cross_entropy(logits.transpose(1, 2), tokens, reduction="none") * inputs["completion_mask"][:, 1:]
    if "ref_chosen_logps" in inputs:
        reference = inputs["ref_chosen_logps"], inputs["ref_rejected_logps"]
    else:
        reference = host.compute_ref_log_probs(host.ref_model, inputs)
    return each.sum(1).view(2, -1) - torch.stack(reference)


def _robust(margin: Tensor, beta: float, smoothing: float) -> Tensor:
    """Chowdhury et al., Provably Robust DPO (arXiv:2403.00409), equation 12."""
    kept, exchanged = F.logsigmoid(beta * margin), F.logsigmoid(-beta * margin)
    return (smoothing * exchanged - (1 - smoothing) * kept) / (1 - 2 * smoothing)


_LOSS_OF_MARGIN = {
    "sigmoid": lambda margin, beta, _: -F.logsigmoid(beta * margin),
    "hinge": lambda margin, beta, _: torch.relu(1 - beta * margin),
    # Azar et al. (arXiv:2310.12036), equation 17; the margin is per token, as the host has it.
    "ipo": lambda margin, beta, _: (margin - 1 / (2 * beta)) ** 2,
    "robust": _robust,
}


def _refuse(host: Any) -> None:
    losses = list(getattr(host, "loss_types", ()))
    args = host.args
    found = (
        (len(losses) != 1 or losses[0] not in LOSSES, f"loss_type={losses} is not supported; {', '.join(LOSSES)} are"),
        (args.use_weighting, "use_weighting weights the pairs already; leave it out"),
        (args.ld_alpha is not None, "ld_alpha is not supported; leave it out"),
        (args.f_divergence_type != "reverse_kl", "f_divergence_type must be reverse_kl"),
        (args.sync_ref_model, "sync_ref_model is not supported; leave it out"),
        (host.aux_loss_enabled, "the load-balancing loss of experts is not used; set router_aux_loss_coef=0.0"),
        (host._is_vision_dataset, "images are not supported here"),
        (
            host.ref_model is None and not args.precompute_ref_log_probs,
            "an adapter without a reference model of its own: set precompute_ref_log_probs=True",
        ),
    )  # fmt: skip
    for wrong, line in found:
        if wrong:
            raise UserError(f"{type(host).__name__}: {line}")
