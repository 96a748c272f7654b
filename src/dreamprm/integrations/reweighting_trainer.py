"""`ReweightingTrainer`: transformers' `Trainer` that learns which of its training data to trust.

The host's update, with the weigher's after it (`reweighting.py` has the equations). Data order, accumulation,
clipping, schedule, precision, evaluation, checkpoints and logs are the host's. `ReweightingMixin` goes before any
subclass of `Trainer` that leaves the loop as it is: `class MyTrainer(ReweightingMixin, SFTTrainer)`; the host's own
`compute_loss` is then used in evaluation only.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn
from transformers import Trainer, TrainerCallback

from bilevel import Lookahead
from dreamprm.errors import UserError
from dreamprm.integrations.reweighting import WEIGHER_FILE, ExampleLosses, Reweighting, meta_rows, tokenized
from dreamprm.integrations.token_table import TokenTable, token_losses

__all__ = ["WEIGHER_FILE", "ExampleLosses", "ReweightingMixin", "ReweightingTrainer", "meta_rows"]

if TYPE_CHECKING:
    _Host = Trainer
else:
    _Host = object


class ReweightingMixin(_Host):
    """Put before the host's class. Every argument but these goes to it.

    Args:
        example_losses: (model, inputs) -> (B,), one loss per example, not averaged over the batch; None for
            `default_losses`, of causal language models alone.
        weigher: inputs -> (B,), one weight per example, differentiable in the weigher's own parameters; None for
            `default_weigher`.
        meta_dataset: the trusted examples, with a length, collated as the training data are; None for the host's
            eval_dataset, tokenized as it does.
        meta_batch_size: of them, per update; None for the host's per_device_train_batch_size.
        outer_loss: (model, inputs) -> scalar; None for the mean of `example_losses`.
        weigher_optimizer: None for Adam(lr=weigher_rate).
        weigher_every: one update of the weigher per so many of the model.
        lookahead: further arguments of `bilevel.Lookahead` (product, adam, check, …).

    The host logs, beside its own names: meta_loss, weight_mean, weight_min and weight_max of the last update.

    Every example counts as one, however many tokens it has: the host's num_items_in_batch is not used.
    Columns that only the weigher reads (an example's number) need `remove_unused_columns=False`.
    Raises UserError where the host is set up in a way that the hypergradient does not cover, naming the way out.
    """

    def __init__(
        self,
        *args: Any,
        example_losses: ExampleLosses | None = None,
        weigher: nn.Module | None = None,
        meta_dataset: Any = None,
        meta_batch_size: int | None = None,
        outer_loss: ExampleLosses | None = None,
        weigher_optimizer: torch.optim.Optimizer | None = None,
        weigher_rate: float = 1e-2,
        weigher_every: int = 1,
        lookahead: Mapping[str, Any] | None = None,
        **kwargs: Any,
    ) -> None:
        super().__init__(*args, **kwargs)
        self.reweighting = Reweighting(
            self,
            example_losses=example_losses or self.default_losses(),
            weigher=self.default_weigher() if weigher is None else weigher,
            rows=self.rows_of,
            meta_dataset=meta_dataset,
            meta_batch_size=meta_batch_size,
            outer_loss=outer_loss,
            weigher_optimizer=weigher_optimizer,
            weigher_rate=weigher_rate,
            weigher_every=weigher_every,
            lookahead=lookahead,
        )
        self.weigher = self.reweighting.weigher
        self.add_callback(_Begin(self.reweighting))

    def default_losses(self) -> ExampleLosses:
        """The loss of the next tokens that have a label, each example's mean. Raises UserError for other losses."""
        host: Any = self
        model = host.model.get_base_model() if hasattr(host.model, "get_base_model") else host.model
        name, config = type(model).__name__, getattr(model, "config", None)
        if not getattr(model, "can_generate", bool)() or getattr(config, "is_encoder_decoder", False):
            raise UserError(
                f"{type(self).__name__}: without example_losses each example has the loss of its next tokens, which is "
                f"that of a causal language model, and {name} is none; give example_losses=(model, inputs) -> (B,)"
            )
        if (kind := getattr(host.args, "loss_type", None)) not in (None, "nll"):
            raise UserError(
                f"{type(self).__name__}: loss_type={kind!r} is not used; set loss_type='nll', or give example_losses"
            )
        return token_losses

    def default_weigher(self) -> nn.Module:
        """A table over the host's tokenized train_dataset."""
        return TokenTable(tokenized(self.train_dataset))

    def rows_of(self, inputs: Mapping[str, Any]) -> Mapping[str, Tensor] | None:
        """Where an example has several rows of a batch: `Lookahead.inner`'s rows."""
        return None

    @property
    def lookahead(self) -> Lookahead:
        """The engine around the host's optimizer, from the beginning of `train` on."""
        return self.reweighting.lookahead

    def create_optimizer(self, model: Any = None) -> torch.optim.Optimizer:
        self.reweighting.end()  # of an earlier train() of this trainer
        return super().create_optimizer(model)

    def training_step(
        self, model: nn.Module, inputs: dict[str, Any], num_items_in_batch: Tensor | int | None = None
    ) -> Tensor:
        """One micro-batch. Returns its share of the update's mean loss, unweighted, which is what the host logs."""
        model.train()
        return self.reweighting.micro_batch(model, self._prepare_inputs(inputs))

    def log(self, logs: dict[str, float], start_time: float | None = None) -> None:
        super().log(logs | self.reweighting.numbers if "loss" in logs else logs, start_time)

    def _save_optimizer_and_scheduler(self, output_dir: str) -> None:
        super()._save_optimizer_and_scheduler(output_dir)
        self.reweighting.save(output_dir)

    def _load_optimizer_and_scheduler(self, checkpoint: str | None) -> None:
        super()._load_optimizer_and_scheduler(checkpoint)
        if checkpoint is not None:
            self.reweighting.load(checkpoint)


class ReweightingTrainer(ReweightingMixin, Trainer):
    """transformers' `Trainer` with a data weigher; see `ReweightingMixin` for the arguments."""


class _Begin(TrainerCallback):
    def __init__(self, reweighting: Reweighting) -> None:
        self.reweighting = reweighting

    def on_train_begin(self, *_: Any, **__: Any) -> None:
        self.reweighting.begin()
