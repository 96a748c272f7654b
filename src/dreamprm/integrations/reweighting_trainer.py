"""`ReweightingTrainer`: transformers' `Trainer` that learns which of its training data to trust.

The host's update, with the weigher's after it:

    g = Σ_i w_i(φ)/(B·A) ∇ℓ_i(θ),   θ' = optimizer(θ, clip(g)),   φ' = weigher_optimizer(φ, dF(θ')/dφ)

F is the mean loss of a few trusted examples. Data order, accumulation, clipping, schedule, precision, evaluation,
checkpoints and logs are the host's. `ReweightingMixin` goes before any subclass of `Trainer` that leaves the loop as it
is: `class MyTrainer(ReweightingMixin, SFTTrainer)`; the host's own `compute_loss` is then used in evaluation only.

Shapes: B examples of a micro-batch, A micro-batches of an update.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn
from transformers import Trainer, TrainerCallback

from bilevel import Lookahead, Status
from dreamprm.errors import UserError
from dreamprm.weigher import project

__all__ = ["WEIGHER_FILE", "ExampleLosses", "ReweightingMixin", "ReweightingTrainer", "meta_rows"]

ExampleLosses = Callable[[nn.Module, Mapping[str, Any]], Tensor]
"""(model, inputs) -> one loss per example, (B,)."""

WEIGHER_FILE = "weigher.pt"
"""In every checkpoint of the host: the weigher and its optimizer."""

if TYPE_CHECKING:
    _Host = Trainer
else:
    _Host = object


def meta_rows(num_rows: int, batch_size: int, update: int, seed: int) -> list[int]:
    """The meta examples of an update, without replacement. The number alone decides: a resumed run sees the same."""
    draw = torch.Generator().manual_seed(seed * 1_000_003 + update)
    return torch.randperm(num_rows, generator=draw)[:batch_size].tolist()


class ReweightingMixin(_Host):
    """Put before the host's class. Every argument but these goes to it.

    Args:
        example_losses: (model, inputs) -> (B,), one loss per example, not averaged over the batch.
        weigher: inputs -> (B,), one weight per example, differentiable in the weigher's own parameters.
        meta_dataset: the trusted examples, with a length; collated as the training data are.
        meta_batch_size: of them, per update; None for the host's per_device_train_batch_size.
        outer_loss: (model, inputs) -> scalar; None for the mean of `example_losses`.
        weigher_optimizer: None for Adam(lr=1e-2).
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
        example_losses: ExampleLosses,
        weigher: nn.Module,
        meta_dataset: Any,
        meta_batch_size: int | None = None,
        outer_loss: ExampleLosses | None = None,
        weigher_optimizer: torch.optim.Optimizer | None = None,
        weigher_every: int = 1,
        lookahead: Mapping[str, Any] | None = None,
        **kwargs: Any,
    ) -> None:
        super().__init__(*args, **kwargs)
        _refuse_host(self)
        if not len(meta_dataset):
            raise UserError("meta_dataset is empty: give it the examples that you trust")
        if weigher_every < 1:
            raise UserError(f"weigher_every is {weigher_every}; allowed: 1 or more updates")
        self.example_losses, self.meta_dataset = example_losses, meta_dataset
        self.meta_batch_size = meta_batch_size or self.args.per_device_train_batch_size
        self.outer_loss = outer_loss or (lambda model, inputs: example_losses(model, inputs).mean())
        self.weigher = weigher.to(self.args.device)
        self.weigher_optimizer = weigher_optimizer or torch.optim.Adam(weigher.parameters(), lr=1e-2)
        self.weigher_every = weigher_every
        self._lookahead_settings = dict(lookahead or {})
        self._lookahead: Lookahead | None = None
        self._weights: list[Tensor] = []
        self._numbers: dict[str, float] = {}
        self.add_callback(_Begin(self))

    # -- the inner update --------------------------------------------------------------------------------------------

    @property
    def lookahead(self) -> Lookahead:
        """The engine around the host's optimizer, from the beginning of `train` on."""
        if self._lookahead is None:
            raise RuntimeError("there is no Lookahead before train() has begun")
        return self._lookahead

    def begin_reweighting(self) -> None:
        """Put the engine around the host's optimizer, which is now made, prepared and, in a resumed run, loaded."""
        optimizer: Any = self.optimizer
        model: Any = self.model
        clip_norm = self.args.max_grad_norm or None
        settings: dict[str, Any] = {"clip_norm": clip_norm} | self._lookahead_settings
        try:
            self._lookahead = Lookahead(model, optimizer, **settings)
        except ValueError as error:
            raise UserError(f"{error} (optim={getattr(self.args.optim, 'value', self.args.optim)})") from error
        self._lookahead.num_updates = self.state.global_step // self.weigher_every
        self._weights.clear()
        stepping: Any = _DifferentiatedStep(optimizer, self._step)
        self.optimizer = stepping

    def create_optimizer(self, model: Any = None) -> torch.optim.Optimizer:
        if isinstance(self.optimizer, _DifferentiatedStep):
            self.optimizer = self.optimizer.optimizer  # an earlier train() of this trainer
        return super().create_optimizer(model)

    @property
    def _due(self) -> bool:
        return (self.state.global_step + 1) % self.weigher_every == 0

    def training_step(
        self, model: nn.Module, inputs: dict[str, Any], num_items_in_batch: Tensor | int | None = None
    ) -> Tensor:
        """One micro-batch. Returns its share of the update's mean loss, unweighted, which is what the host logs."""
        model.train()
        inputs = self._prepare_inputs(inputs)
        with self.lookahead.inner(record=self._due):
            with self.compute_loss_context_manager():
                losses = self.example_losses(model, inputs)
            weights = self.weigher(inputs)
            _refuse_shapes(losses, weights)
            share = len(losses) * self.current_gradient_accumulation_steps
            self.lookahead.backward(losses, weights / share)
        self._weights.append(weights.detach())
        return losses.detach().sum() / share

    def _clip_grad_norm(self, model: nn.Module) -> Tensor:
        """The norm alone: `Lookahead.step` clips, so that the derivative knows of it."""
        return torch.nn.utils.get_total_norm([p.grad for p in model.parameters() if p.grad is not None])

    def _get_grad_norm(self, model: nn.Module, grad_norm: Any = None) -> Any:
        return self._clip_grad_norm(model) if grad_norm is None else grad_norm

    # -- the outer update --------------------------------------------------------------------------------------------

    def _step(self) -> None:
        """What the host's `optimizer.step()` does: the optimizer's step and, where it is due, the weigher's."""
        due = self._due
        self.lookahead.step()
        used = torch.cat(self._weights)
        self._weights.clear()
        self._numbers |= {
            "weight_mean": used.mean().item(),
            "weight_min": used.min().item(),
            "weight_max": used.max().item(),
        }
        if not due:
            return
        self.weigher_optimizer.zero_grad()
        with self.compute_loss_context_manager():
            model: Any = self.model_wrapped
            loss = self.outer_loss(model, self._meta_batch())
        status = self.lookahead.backward_outer(loss)
        self._numbers["meta_loss"] = self.lookahead.report["outer_loss"]
        if status is Status.DONE:
            self.weigher_optimizer.step()
            project(self.weigher)

    def _meta_batch(self) -> dict[str, Any]:
        data, update = self.meta_dataset, self.state.global_step
        rows = meta_rows(len(data), self.meta_batch_size, update, self.args.seed)
        collate = self._get_collator_with_removed_columns(self.data_collator, description="meta")
        return self._prepare_inputs(collate([data[row] for row in rows]))

    # -- logs and checkpoints ----------------------------------------------------------------------------------------

    def log(self, logs: dict[str, float], start_time: float | None = None) -> None:
        super().log(logs | self._numbers if "loss" in logs else logs, start_time)

    def _save_optimizer_and_scheduler(self, output_dir: str) -> None:
        super()._save_optimizer_and_scheduler(output_dir)
        state = {"weigher": self.weigher.state_dict(), "optimizer": self.weigher_optimizer.state_dict()}
        torch.save(state, Path(output_dir) / WEIGHER_FILE)

    def _load_optimizer_and_scheduler(self, checkpoint: str | None) -> None:
        super()._load_optimizer_and_scheduler(checkpoint)
        if checkpoint is None:
            return
        path = Path(checkpoint) / WEIGHER_FILE
        if not path.is_file():
            raise UserError(f"{path}: not there, so the weigher cannot be resumed; this checkpoint has no weigher")
        state = torch.load(path, map_location=self.args.device, weights_only=True)
        try:
            self.weigher.load_state_dict(state["weigher"])
        except RuntimeError as error:
            raise UserError(f"{path}: is of another weigher: {error}") from error
        self.weigher_optimizer.load_state_dict(state["optimizer"])


class ReweightingTrainer(ReweightingMixin, Trainer):
    """transformers' `Trainer` with a data weigher; see `ReweightingMixin` for the arguments."""


class _Begin(TrainerCallback):
    def __init__(self, trainer: ReweightingMixin) -> None:
        self.trainer = trainer

    def on_train_begin(self, *_: Any, **__: Any) -> None:
        self.trainer.begin_reweighting()


class _DifferentiatedStep:
    """The host's optimizer, whose `step` is the one that is differentiated."""

    def __init__(self, optimizer: Any, step: Callable[[], None]) -> None:
        self.optimizer, self.step = optimizer, step

    def __getattr__(self, name: str) -> Any:
        return getattr(self.optimizer, name)


def _refuse_shapes(losses: Tensor, weights: Tensor) -> None:
    if losses.ndim != 1 or weights.shape != losses.shape:
        raise UserError(
            f"example_losses gave {tuple(losses.shape)} and the weigher {tuple(weights.shape)}; both must be (B,), one "
            "number per example, not averaged over the batch"
        )


def _refuse_host(trainer: Any) -> None:
    """Raise UserError where the host would do what the hypergradient does not know of."""
    args = trainer.args
    found: Sequence[tuple[bool, str]] = (
        (not hasattr(Trainer, "_clip_grad_norm"), "this transformers clips inside its loop; 5.23 is known to work"),
        (args.world_size > 1, "several processes are not supported; start one"),
        (args.n_gpu > 1, "DataParallel is not supported; set CUDA_VISIBLE_DEVICES to one device"),
        (trainer.is_deepspeed_enabled or trainer.is_fsdp_enabled, "DeepSpeed and FSDP are not supported; drop them"),
        (args.fp16, "fp16 scales its losses; set bf16=True, or neither"),
        (args.torch_compile, "a compiled model hides its layers; set torch_compile=False"),
        (bool(args.label_smoothing_factor), "label_smoothing_factor is not used; put it into example_losses"),
        (trainer.compute_loss_func is not None, "compute_loss_func is not used; give example_losses in its place"),
        (bool(args.neftune_noise_alpha), "neftune_noise_alpha is not supported; leave it out"),
    )
    for wrong, line in found:
        if wrong:
            raise UserError(f"ReweightingTrainer: {line}")
