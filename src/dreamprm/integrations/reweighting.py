"""The engine around the optimizer of a host of transformers' `Trainer` family, and the weigher's own update after it.

    g = Σ_i w_i(φ)/(B·A) ∇ℓ_i(θ),   θ' = optimizer(θ, clip(g)),   φ' = weigher_optimizer(φ, dF(θ')/dφ)

F is the mean loss of a few trusted examples. Shapes: B examples of a micro-batch, A micro-batches of an update.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from transformers import Trainer

from bilevel import Lookahead, Status
from dreamprm.errors import UserError
from dreamprm.integrations.token_table import without_padding
from dreamprm.weigher import project

__all__ = ["WEIGHER_FILE", "ExampleLosses", "Reweighting", "meta_rows", "refuse_meta", "tokenized"]

ExampleLosses = Callable[[nn.Module, Mapping[str, Any]], Tensor]
"""(model, inputs) -> one loss per example, (B,)."""

WEIGHER_FILE = "weigher.pt"
"""In every checkpoint of the host: the weigher and its optimizer."""


def meta_rows(num_rows: int, batch_size: int, update: int, seed: int) -> list[int]:
    """The meta examples of an update, without replacement. The number alone decides: a resumed run sees the same."""
    draw = torch.Generator().manual_seed(seed * 1_000_003 + update)
    return torch.randperm(num_rows, generator=draw)[:batch_size].tolist()


class Reweighting:
    """See `ReweightingMixin` for the arguments; rows: its `rows_of`.

    host: the Trainer.  begin() goes after its optimizer is made and before its first update; from then on the host's
    `optimizer.step()` is the step that is differentiated, with the weigher's update behind it.
    numbers: meta_loss, weight_mean, weight_min and weight_max of the last update.
    """

    def __init__(
        self,
        host: Any,
        *,
        example_losses: ExampleLosses,
        weigher: nn.Module,
        rows: Callable[[Any], Mapping[str, Tensor] | None] = lambda inputs: None,
        meta_dataset: Any = None,
        meta_batch_size: int | None = None,
        outer_loss: ExampleLosses | None = None,
        weigher_optimizer: torch.optim.Optimizer | None = None,
        weigher_rate: float = 1e-2,
        weigher_every: int = 1,
        lookahead: Mapping[str, Any] | None = None,
    ) -> None:
        _refuse_host(host)
        meta_dataset = host.eval_dataset if meta_dataset is None else meta_dataset
        refuse_meta(meta_dataset)
        if weigher_every < 1:
            raise UserError(f"weigher_every is {weigher_every}; allowed: 1 or more updates")
        self.host = host
        self.example_losses, self.rows, self.meta_dataset = example_losses, rows, meta_dataset
        self.meta_batch_size = meta_batch_size or host.args.per_device_train_batch_size
        self.outer_loss = outer_loss or (lambda model, inputs: example_losses(model, inputs).mean())
        self.weigher = weigher.to(host.args.device)
        self.weigher_optimizer = weigher_optimizer or torch.optim.Adam(weigher.parameters(), lr=weigher_rate)
        self.weigher_every = weigher_every
        self.settings = dict(lookahead or {})
        self.numbers: dict[str, float] = {}
        self._lookahead: Lookahead | None = None
        self._weights: list[Tensor] = []
        self._learn = True

    @property
    def lookahead(self) -> Lookahead:
        """The engine around the host's optimizer, from the beginning of its training on."""
        if self._lookahead is None:
            raise RuntimeError("there is no Lookahead before train() has begun")
        return self._lookahead

    @property
    def due(self) -> bool:
        return (self.host.state.global_step + 1) % self.weigher_every == 0

    def begin(self) -> None:
        """Put the engine around the host's optimizer, which is made, prepared and, in a resumed run, loaded."""
        host = self.host
        settings: dict[str, Any] = {"clip_norm": host.args.max_grad_norm or None} | self.settings
        try:
            self._lookahead = Lookahead(host.model, host.optimizer, **settings)
        except ValueError as error:
            raise UserError(f"{error} (optim={getattr(host.args.optim, 'value', host.args.optim)})") from error
        self._lookahead.num_updates = host.state.global_step // self.weigher_every
        self._weights.clear()
        host.optimizer = _DifferentiatedStep(host.optimizer, self._step)
        # The norm alone: `Lookahead.step` clips, so that the derivative knows of it.
        host._clip_grad_norm = _norm
        host._get_grad_norm = lambda model, grad_norm=None: _norm(model) if grad_norm is None else grad_norm

    def end(self) -> None:
        """Give the host its own optimizer back."""
        if isinstance(self.host.optimizer, _DifferentiatedStep):
            self.host.optimizer = self.host.optimizer.optimizer

    def micro_batch(self, model: nn.Module, inputs: Any, *, learn: bool = True) -> Tensor:
        """Forward and backward of a micro-batch; its share of the update's mean loss, unweighted.

        learn: False for weights of 1 and an update that the weigher does not learn from.
        """
        host = self.host
        self._learn = learn
        with self.lookahead.inner(self.rows(inputs), record=self.due and learn):
            with host.compute_loss_context_manager():
                losses = self.example_losses(model, inputs)
            weights = self.weigher(inputs) if learn else torch.ones_like(losses)
            _refuse_shapes(losses, weights)
            share = len(losses) * host.current_gradient_accumulation_steps
            self.lookahead.backward(losses, weights / share)
        self._weights.append(weights.detach())
        return losses.detach().sum() / share

    def _step(self) -> None:
        """What the host's `optimizer.step()` does: the optimizer's step and, where it is due, the weigher's."""
        due = self.due and self._learn
        self.lookahead.step()
        used = torch.cat(self._weights)
        self._weights.clear()
        self.numbers |= {
            "weight_mean": used.mean().item(),
            "weight_min": used.min().item(),
            "weight_max": used.max().item(),
        }
        if not due:
            return
        self.weigher_optimizer.zero_grad()
        with self.host.compute_loss_context_manager():
            loss = self.outer_loss(self.host.model_wrapped, self._meta_batch())
        status = self.lookahead.backward_outer(loss)
        self.numbers["meta_loss"] = self.lookahead.report["outer_loss"]
        if status is Status.DONE:
            self.weigher_optimizer.step()
            project(self.weigher)

    def _meta_batch(self) -> dict[str, Any]:
        host, data = self.host, self.meta_dataset
        rows = meta_rows(len(data), self.meta_batch_size, host.state.global_step, host.args.seed)
        collate = host._get_collator_with_removed_columns(host.data_collator, description="meta")
        return host._prepare_inputs(collate([data[row] for row in rows]))

    def save(self, folder: str | Path) -> None:
        """Write the weigher and its optimizer into a checkpoint of the host."""
        state = {"weigher": self.weigher.state_dict(), "optimizer": self.weigher_optimizer.state_dict()}
        torch.save(state, Path(folder) / WEIGHER_FILE)

    def load(self, folder: str | Path) -> None:
        """Read them again. Raises UserError where the file is not there or is of another weigher."""
        path = Path(folder) / WEIGHER_FILE
        if not path.is_file():
            raise UserError(f"{path}: not there, so the weigher cannot be resumed; this checkpoint has no weigher")
        state = torch.load(path, map_location=self.host.args.device, weights_only=True)
        try:
            self.weigher.load_state_dict(state["weigher"])
        except RuntimeError as error:
            raise UserError(f"{path}: is of another weigher: {error}") from error
        self.weigher_optimizer.load_state_dict(state["optimizer"])


class _DifferentiatedStep:
    """The host's optimizer, whose `step` is the one that is differentiated."""

    def __init__(self, optimizer: Any, step: Callable[[], None]) -> None:
        self.optimizer, self.step = optimizer, step

    def __getattr__(self, name: str) -> Any:
        return getattr(self.optimizer, name)


def _norm(model: nn.Module) -> Tensor:
    return torch.nn.utils.get_total_norm([p.grad for p in model.parameters() if p.grad is not None])


def refuse_meta(meta_dataset: Any) -> None:
    """Raise UserError where this is not one set of trusted examples."""
    if isinstance(meta_dataset, dict):
        raise UserError(f"the meta set must be one set, not {len(meta_dataset)}: {', '.join(meta_dataset)}")
    if meta_dataset is None or not len(meta_dataset):
        raise UserError("there is no meta set: give the examples that you trust as eval_dataset, or as meta_dataset")


def tokenized(train_dataset: Any) -> list[tuple[int, ...]]:
    """The tokens of every row, without padding. Raises UserError where there are none, or no end of rows."""
    if not hasattr(train_dataset, "__len__"):
        raise UserError("train_dataset is a stream, which has no table of its examples: give a weigher of yours")
    columns = train_dataset if isinstance(train_dataset, Mapping) else getattr(train_dataset, "column_names", None)
    try:
        if columns is not None:
            tokens = train_dataset["input_ids"]
            padded = "attention_mask" in columns
            masks = train_dataset["attention_mask"] if padded else [None] * len(tokens)
        else:
            tokens = [row["input_ids"] for row in train_dataset]
            masks = [row.get("attention_mask") for row in train_dataset]
    except (KeyError, TypeError) as error:
        raise UserError("train_dataset has no input_ids to know its examples by: give a weigher of yours") from error
    return [without_padding(*row) for row in zip(tokens, masks, strict=True)]


def _refuse_shapes(losses: Tensor, weights: Tensor) -> None:
    if losses.ndim != 1 or weights.shape != losses.shape:
        raise UserError(
            f"example_losses gave {tuple(losses.shape)} and the weigher {tuple(weights.shape)}; both must be (B,), one "
            "number per example, not averaged over the batch"
        )


def _refuse_host(host: Any) -> None:
    """Raise UserError where the host would do what the hypergradient does not know of."""
    args = host.args
    found: Sequence[tuple[bool, str]] = (
        (not hasattr(Trainer, "_clip_grad_norm"), "this transformers clips inside its loop; 5.23 is known to work"),
        (args.world_size > 1, "several processes are not supported; start one"),
        (args.n_gpu > 1, "DataParallel is not supported; set CUDA_VISIBLE_DEVICES to one device"),
        (host.is_deepspeed_enabled or host.is_fsdp_enabled, "DeepSpeed and FSDP are not supported; drop them"),
        (args.fp16, "fp16 scales its losses; set bf16=True, or neither"),
        (args.torch_compile, "a compiled model hides its layers; set torch_compile=False"),
        (bool(args.label_smoothing_factor), "label_smoothing_factor is not used; put it into example_losses"),
        (host.compute_loss_func is not None, "compute_loss_func is not used; give example_losses in its place"),
        (getattr(args, "activation_offloading", False), "activation_offloading is not supported; leave it out"),
        (
            getattr(args, "use_liger_kernel", False),
            "Liger's kernels hide each example's loss; leave them out",
        ),
        (bool(args.neftune_noise_alpha), "neftune_noise_alpha is not supported; leave it out"),
    )
    for wrong, line in found:
        if wrong:
            raise UserError(f"{type(host).__name__}: {line}")
