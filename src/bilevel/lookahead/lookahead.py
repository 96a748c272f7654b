"""`Lookahead`: exact hypergradients for data weights, around a live optimizer in anybody's training loop.

Inner step g = Σ_i c_i(φ) ∇ℓ_i(θ), g̃ = clip(g), θ' = T(θ, g̃; state); outer loss F(θ'). With

    v = ∇F(θ'),   u = Cᵀ D v,   D = -∂T/∂g̃,   C = ∂clip/∂g,   d_i = <u, ∇ℓ_i(θ)>

the hypergradient is dF/dφ = -Σ_i (∂c_i/∂φ) d_i: one number per example is all that is needed of the big model.
"""

from __future__ import annotations

import logging
from collections.abc import Generator, Mapping
from contextlib import contextmanager
from typing import Any, Literal

import torch
from torch import Tensor, nn

from ..status import Status
from ..steps import check_optimizer, step_vjp, undo_step, undoable, unwrap
from .check import THRESHOLD, HypergradientCheckError, Reference, cosine, explain
from .replay import Replay
from .row_maps import RowMaps
from .tape import Tape, trainable_sites
from .typed import backward, gradients, named_modules, norm
from .unroll import DoubleBackward

__all__ = ["Lookahead", "Product"]

Product = Literal["ghost", "jvp", "fd", "unroll", "darts"]
_PRODUCTS = ("ghost", "jvp", "fd", "unroll", "darts")
_log = logging.getLogger("bilevel")


class _MicroBatch:
    """What one inner block leaves for the hypergradient."""

    def __init__(self, recorder: Tape | Replay | DoubleBackward) -> None:
        self.recorder = recorder
        self.coefficients: Tensor | None = None  # attached to the weigher
        self.used: Tensor | None = None  # as the backward pass had them, away from zero
        self.scale: float = 1.0
        self.reference: Reference | None = None


class Lookahead:
    """One-step lookahead hypergradients of data weights.

        lookahead = Lookahead(model, optimizer, clip_norm=1.0)
        optimizer.zero_grad()
        with lookahead.inner():
            losses = example_losses(model, batch)                # (B,)
            lookahead.backward(losses, weigher(batch) / len(losses))
        lookahead.step()
        lookahead.backward_outer(outer_loss(model, meta_batch))  # adds dF/dφ to the weigher's .grad

    Args:
        model: the module whose calls make the losses. Its own optimizer step is what is differentiated.
        optimizer: a live torch.optim SGD, Adam, AdamW, RMSprop or Adagrad, or bitsandbytes Adam(W), 8-bit
            too. Only read.
        product: how d_i is computed. `ghost` (exact, about one forward's matmuls), `jvp` (exact, forward mode, any
            layer with a forward-mode rule), `unroll` (exact, double backward), `fd` (central difference at θ, fp32
            only), `darts` (difference at θ' without the step's derivative, as the papers' code does: to compare with).
        clip_norm, clip_value: clipping of the inner gradient, inside the derivative; one of the two.
        adam: "exact", or "frozen" for moments held constant.
        scaler: a torch.amp.GradScaler, where the inner backward pass needs one.
        check: "raise" compares the product with plain autograd at the first update and stops below .99; "log" only logs
            the agreement (report["check"]); "off".
        epsilon: ‖ε u‖ of `fd` and `darts`.

    Raises ValueError for what is not supported, naming the way out.
    Limits: the outer loss must depend on φ through θ' alone; model and optimizer are used by one process, or under data
    parallelism with the module itself (not its wrapper), where φ's gradients are to be averaged over the processes.
    """

    def __init__(
        self,
        model: nn.Module,
        optimizer: Any,
        product: Product = "ghost",
        clip_norm: float | None = None,
        adam: Literal["exact", "frozen"] = "exact",
        *,
        clip_value: float | None = None,
        scaler: Any = None,
        check: Literal["raise", "log", "off"] = "raise",
        epsilon: float = 1e-2,
    ) -> None:
        _validate(product, adam, check, clip_norm, clip_value, epsilon)
        if hasattr(model, "_orig_mod"):
            raise ValueError("the model is compiled, which hides its functions; give Lookahead the module itself")
        check_optimizer(optimizer)
        self.model, self.optimizer, self.product, self.adam = model, optimizer, product, adam
        self.clip_norm, self.clip_value, self.scaler, self.epsilon = clip_norm, clip_value, scaler, epsilon
        self.report: dict[str, float] = {}
        self._check = check
        self._checked = check == "off"
        self._batches: list[_MicroBatch] = []
        self._open: _MicroBatch | None = None
        self._outer: dict[Tensor, Tensor] = {}
        self._num_outer = 0
        self._outer_loss = 0.0
        self._parameters = self._trainable()
        self._sites = trainable_sites(model, set(self._parameters))
        self._names = {site.parameter: site.name for site in reversed(self._sites)}
        if product in ("jvp", "fd", "darts"):
            _refuse_replay(model, product, self._parameters)

    def _trainable(self) -> list[Tensor]:
        live = unwrap(self.optimizer)
        ours = set(self.model.parameters())
        chosen: list[Tensor] = []
        for index, group in enumerate(live.param_groups):
            for place, parameter in enumerate(group["params"]):
                if parameter.requires_grad and parameter not in ours:
                    raise ValueError(
                        f"parameter {place} of the optimizer's group {index} is not in the model; Lookahead sees the "
                        "losses through the model only: make it a parameter of the model, or give it its own optimizer"
                    )
                if parameter.requires_grad:
                    chosen.append(parameter)
        if not chosen:
            raise ValueError("the optimizer holds no trainable parameter of the model")
        return chosen

    # -- inner ---------------------------------------------------------------------------------------------------

    @contextmanager
    def inner(self, rows: Mapping[str, Tensor] | None = None, record: bool = True) -> Generator[None]:
        """One micro-batch of the inner step: compute the losses and call `backward` inside.

        rows: where rows are not examples: module-name prefix -> example of each row, (M,) or (L, T), for the modules
            below it (a vision tower's tiles, a packed sequence's patches or positions).
        record: False for an update without a hypergradient: nothing is kept.
        """
        if self._open is not None:
            raise RuntimeError("lookahead.inner() blocks cannot be nested")
        if not record:
            yield
            return
        batch = _MicroBatch(self._recorder(rows))
        self._open = batch
        try:
            with batch.recorder.open():
                yield
            if batch.coefficients is None:
                raise RuntimeError("lookahead.inner() ended without lookahead.backward(losses, coefficients)")
            self._batches.append(batch)
        finally:
            self._open = None

    def _recorder(self, rows: Mapping[str, Tensor] | None) -> Tape | Replay | DoubleBackward:
        if self.product == "ghost":
            return Tape(self.model, self._sites, rows)
        if self.product == "unroll":
            return DoubleBackward(self.model, self._sites, rows)
        return Replay(self.model, self._sites, rows, forward_mode=self.product == "jvp")

    def backward(self, losses: Tensor, coefficients: Tensor) -> None:
        """Add Σ_i c_i ∇ℓ_i to `.grad`.  losses, coefficients: (B,); the coefficients attached to the weigher."""
        if losses.ndim != 1 or coefficients.shape != losses.shape:
            raise ValueError(
                f"losses and coefficients must be one number per example, (B,), are {tuple(losses.shape)} and "
                f"{tuple(coefficients.shape)}; a loss that was averaged over the batch cannot be weighted any more"
            )
        batch = self._open
        used = coefficients.detach().to(losses.dtype)
        if batch is None:  # inner(record=False)
            backward(self._scaled((used * losses).sum()))
            return
        if batch.coefficients is not None:
            raise RuntimeError("one lookahead.backward per lookahead.inner() block; open a block for each micro-batch")
        batch.coefficients = coefficients
        if not self._checked and not self._batches:
            copies = batch.recorder.copies if isinstance(batch.recorder, DoubleBackward) else None
            inputs = self._parameters if copies is None else [copies[p] for p in self._parameters]
            batch.reference = Reference.take(losses, inputs)
            if copies is not None:
                batch.reference.gradients = [
                    {p: g[copies[p]] for p in self._parameters if copies[p] in g} for g in batch.reference.gradients
                ]
        if isinstance(batch.recorder, DoubleBackward):
            self._scaled(losses.detach().sum())  # initialises the scaler
            batch.scale = self.scaler.get_scale() if self.scaler else 1.0
            batch.recorder.backward(losses, coefficients, batch.scale)
            batch.used = torch.ones_like(used)  # d_i itself, not c_i d_i
            return
        batch.used = _away_from_zero(used)
        batch.recorder.maps = RowMaps(batch.recorder.rows, len(losses))
        batch.recorder.recording = True
        written = {p: p.grad._version for p in self._parameters if p.grad is not None}
        try:
            backward(self._scaled((batch.used * losses).sum()))
        finally:
            batch.recorder.recording = False
        batch.scale = self.scaler.get_scale() if self.scaler else 1.0
        batch.recorder.verify_covered()
        if batch.reference is not None:
            batch.reference.refuse_hidden(self._names, written)

    def _scaled(self, loss: Tensor) -> Tensor:
        return self.scaler.scale(loss) if self.scaler else loss

    def step(self) -> None:
        """Unscale, clip, and take the optimizer's step; `.grad` stays until the next zero_grad."""
        live = unwrap(self.optimizer)
        if self.scaler:
            self.scaler.unscale_(live)
        parameters = [p for p in self._parameters if p.grad is not None]
        self._norm: Tensor | None = None
        if self.clip_norm is not None:
            self._norm = torch.nn.utils.clip_grad_norm_(parameters, self.clip_norm)
        elif self.clip_value is not None:
            torch.nn.utils.clip_grad_value_(parameters, self.clip_value)
        self._before = {}
        if self.product in ("jvp", "fd") and self._batches:  # the others do not need θ again
            self._before = {p: p.detach().clone() for p in self._parameters if not undoable(live, p)}
        self._groups = [{k: v for k, v in group.items() if k != "params"} for group in live.param_groups]
        self._first = {p: "momentum_buffer" not in live.state.get(p, {}) for p in self._parameters}
        self._skipped = False
        if self.scaler:
            before = self.scaler.get_scale()
            self.scaler.step(live)
            self.scaler.update()
            self._skipped = self.scaler.get_scale() < before
        else:
            self.optimizer.step()

    # -- outer ---------------------------------------------------------------------------------------------------

    def accumulate_outer(self, outer_loss: Tensor) -> None:
        """Add ∇F of one outer micro-batch to v; call before `backward_outer`, whose v is then the mean of all."""
        grads = gradients(outer_loss, self._parameters)
        self._num_outer += 1
        self._outer_loss += float(outer_loss.detach())
        for parameter, gradient in zip(self._parameters, grads, strict=True):
            if gradient is None:
                continue
            if gradient.dtype == torch.float16:  # lr · v would underflow
                gradient = gradient.float()
            kept = self._outer.get(parameter)
            self._outer[parameter] = gradient if kept is None else kept.add_(gradient)

    def backward_outer(self, outer_loss: Tensor) -> Status:
        """Add dF/dφ to the `.grad` of whatever the coefficients came from.

        outer_loss: scalar, computed with the model after `step()`. Returns `Status.DONE`, or `Status.NOT_FINITE` where
        the outer gradient is not finite or the step was skipped; then nothing is added. `report` holds the numbers.
        """
        if not self._batches:
            raise RuntimeError("nothing recorded: run lookahead.inner() with record=True, backward and step() first")
        self.accumulate_outer(outer_loss)
        vector, count = self._outer, self._num_outer
        loss = self._outer_loss / count
        batches, self._batches = self._batches, []
        self._outer, self._num_outer, self._outer_loss = {}, 0, 0.0
        for v in vector.values():
            if count > 1:
                v.div_(count)
        _average_over_processes(vector, self._parameters)
        size = _global_norm(vector)
        self.report = {"outer_loss": loss, "outer_gradient_norm": float(size)}
        if self._norm is not None:
            self.report["inner_gradient_norm"] = float(self._norm)
        if (
            not bool(torch.isfinite(size))
            or self._skipped
            or (self._norm is not None and not bool(torch.isfinite(self._norm)))
        ):
            return Status.NOT_FINITE
        cotangent = vector if self.product == "darts" else self._through_step(vector)
        if self.product in ("jvp", "fd"):
            kept = [p for p in self._parameters if p not in self._before]
            self._before |= undo_step(unwrap(self.optimizer), kept, self._groups)
        surrogate: Tensor | None = None
        for batch in batches:
            d = self._products(batch, cotangent)
            if batch.coefficients is None or not batch.coefficients.requires_grad:
                raise ValueError(
                    "the coefficients do not depend on any weigher parameter; was the weigher's output detached?"
                )
            part = -(batch.coefficients * d.to(batch.coefficients.dtype)).sum()
            surrogate = part if surrogate is None else surrogate + part
        assert surrogate is not None
        backward(surrogate)
        self._before = {}
        return Status.DONE

    def _through_step(self, vector: dict[Tensor, Tensor]) -> dict[Tensor, Tensor]:
        """u = Cᵀ D v, in place."""
        cotangent: dict[Tensor, Tensor] = step_vjp(
            self.optimizer, vector, groups=self._groups, first_step=self._first, adam=self.adam, inplace=True
        )
        if self.clip_value is not None:
            for parameter, u in cotangent.items():
                if parameter.grad is not None:
                    u.mul_(parameter.grad.abs() < self.clip_value)
        elif self.clip_norm is not None and self._norm is not None and float(self._norm) + 1e-6 > self.clip_norm:
            # Cᵀx = a x - a <x, g> g / (n (n + 1e-6)), written with g̃ = a g, which is what .grad holds now.
            n, a = float(self._norm), self.clip_norm / (float(self._norm) + 1e-6)
            pairs = [(u, p.grad) for p, u in cotangent.items() if p.grad is not None]
            inner = sum(float(torch.dot(u.flatten().to(w), g.flatten().to(w))) for u, g in pairs for w in [_wide(u, g)])
            for u, g in pairs:
                u.mul_(a).add_(g.to(u.dtype), alpha=-inner / (a * n * (n + 1e-6)))
        if self.product == "fd":
            # Where the inner gradient is 0 (a token that the batch does not hold) u has no effect, and Adam's is huge:
            # left in, it would use up the whole perturbation.
            for parameter, u in cotangent.items():
                if parameter.grad is not None:
                    u.masked_fill_(parameter.grad == 0, 0.0)
        return cotangent

    def _products(self, batch: _MicroBatch, cotangent: dict[Tensor, Tensor]) -> Tensor:
        """d_i = <u, ∇ℓ_i>, (B,)."""
        assert batch.used is not None
        divide = batch.used * batch.scale
        if batch.reference is not None and isinstance(batch.recorder, Tape):
            self._verify_ghost(batch.recorder, batch.reference, cotangent, divide)
        d = self._raw_products(batch.recorder, cotangent) / divide
        if batch.reference is not None and not isinstance(batch.recorder, Tape):
            reference = batch.reference.product(cotangent)
            self._judge(cosine(d[list(batch.reference.examples)], reference), [])
        return d

    def _raw_products(self, recorder: Tape | Replay | DoubleBackward, cotangent: dict[Tensor, Tensor]) -> Tensor:
        if not isinstance(recorder, Replay):
            return recorder.products(cotangent)
        if self.product == "darts":  # at θ', with fresh dropout masks, in the parameters' own precision
            now = {p: p.detach() for p in self._parameters}
            return recorder.difference(now, cotangent, self.epsilon, same_random=False)
        if self.product == "fd":
            return recorder.difference(self._before, cotangent, self.epsilon)
        return recorder.jvp(self._before, cotangent)

    def _verify_ghost(self, tape: Tape, reference: Reference, cotangent: dict[Tensor, Tensor], divide: Tensor) -> None:
        """Parameter by parameter: a longer vector to compare, and the culprit's name."""
        rows = list(reference.examples)
        ours: list[Tensor] = []
        theirs: list[Tensor] = []
        for parameter, u in cotangent.items():
            ours.append((tape.products({parameter: u}, keep=True) / divide)[rows].double().cpu())
            theirs.append(reference.product(cotangent, parameter))
        size = float(norm(torch.cat(theirs)))
        worst = sorted(
            (float(norm(a - b)), self._names[p], cosine(a, b)) for p, a, b in zip(cotangent, ours, theirs, strict=True)
        )[::-1]
        named = [(name, agreement) for error, name, agreement in worst[:3] if error > 0.01 * size]
        self._judge(cosine(torch.cat(ours), torch.cat(theirs)), named)

    def _judge(self, agreement: float, worst: list[tuple[str, float]]) -> None:
        self.report["check"] = agreement
        if agreement != agreement:  # the reference is zero: look again at the next update
            return
        self._checked = True
        _log.info("hypergradient check: %s agrees with plain autograd to %.6f", self.product, agreement)
        if agreement < THRESHOLD and self._check == "raise":
            raise HypergradientCheckError(explain(agreement, self.product, worst))


def _wide(*tensors: Tensor) -> torch.dtype:
    return torch.float64 if any(t.dtype == torch.float64 for t in tensors) else torch.float32


def _global_norm(tensors: Mapping[Tensor, Tensor]) -> Tensor:
    norms = [norm(t, _wide(t)).double() for t in tensors.values()]
    return norm(torch.stack(norms)) if norms else torch.zeros(())


def _validate(
    product: str, adam: str, check: str, clip_norm: float | None, clip_value: float | None, epsilon: float
) -> None:
    for name, value, allowed in (
        ("product", product, _PRODUCTS),
        ("adam", adam, ("exact", "frozen")),
        ("check", check, ("raise", "log", "off")),
    ):
        if value not in allowed:
            raise ValueError(f"{name} must be one of {', '.join(allowed)}, is {value!r}")
    for name, value in (("clip_norm", clip_norm), ("clip_value", clip_value), ("epsilon", epsilon)):
        if value is not None and not value > 0:
            raise ValueError(f"{name} must be positive, is {value!r}")
    if clip_norm is not None and clip_value is not None:
        raise ValueError("clip by norm or by value, not both: give clip_norm or clip_value")


def _refuse_replay(model: nn.Module, product: str, parameters: list[Tensor]) -> None:
    quantized = [name for name, m in named_modules(model) if type(m).__module__.startswith("bitsandbytes.nn")]
    if quantized and product == "jvp":
        raise ValueError(
            f"product='jvp' through quantized layers ({quantized[0]}, …): they drop the tangent without a sound; "
            "use 'ghost'"
        )
    if product == "fd" and any(p.dtype in (torch.bfloat16, torch.float16) for p in parameters):
        raise ValueError(
            "product='fd' with 16-bit parameters is rounding noise: the perturbation is below their spacing; "
            "use 'ghost' or 'jvp', or keep fp32 master weights under autocast"
        )


def _away_from_zero(coefficients: Tensor) -> Tensor:
    """d_i is recovered by dividing by c_i: hold |c_i| above 1e-12 of the largest, so that a weight of 0 can come back.

    Floating point keeps its relative precision at any size, so nothing is lost by the smallness; only fp16 losses,
    whose exponents end at 1e-8, get a larger floor.
    """
    largest = coefficients.abs().max()
    base = torch.where(largest > 0, largest, torch.full_like(largest, 1.0 / len(coefficients)))
    floor = base * (1e-3 if coefficients.dtype == torch.float16 else 1e-12)
    sign = torch.where(coefficients < 0, -1.0, 1.0).to(coefficients.dtype)
    return torch.where(coefficients.abs() < floor, sign * floor, coefficients)


def _average_over_processes(vector: dict[Tensor, Tensor], parameters: list[Tensor]) -> None:
    distributed: Any = torch.distributed
    if not (distributed.is_available() and distributed.is_initialized() and distributed.get_world_size() > 1):
        return
    for parameter in parameters:  # every process takes part for every parameter
        v = vector.setdefault(parameter, torch.zeros_like(parameter))
        distributed.all_reduce(v)
        v.div_(distributed.get_world_size())
