"""Several updates before one outer loss: Lookahead(model, optimizer, "unroll", steps=K), exact through all of them.

With λ_K = ∇F(θ_K) and μ the adjoint of the optimizer's moments, for k = K-1 … 0:

    u_k = -Cᵀ (∂T/∂g̃)ᵀ (λ, μ),   d_ik = <u_k, ∇ℓ_i(θ_k)>,   λ <- (∂T/∂θ)ᵀ (λ, μ) - H_k u_k,   μ <- (∂T/∂m)ᵀ (λ, μ)

and dF/dφ = ∂F/∂φ - Σ_k Σ_i (∂c_ik/∂φ) d_ik. H_k is the Hessian of the weighted loss Σ_i c_ik ℓ_i at θ_k.

Why by `unroll` alone: H_k u_k needs the second derivative of the inner pass. `ghost` keeps factors of the first one and
`jvp` runs the model forward along one direction, after which the next direction would need a reverse pass through that:
the graph of `unroll` holds both products at once. So K graphs are kept, and the memory grows with K; for many steps of
a small model use `bilevel.Unrolled`, which keeps K copies and one graph.

T is one of the functional optimizers, which have torch.optim's trajectories. Every step is taken again by it and
compared with where the live optimizer went, and its moments with those that the next step began from.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from .._functional import vjp
from ..optimizers import SGD, Adagrad, Adam, AdamW, NAdam, RMSprop, State
from .graph import leaves
from .taken_step import TakenStep, fingerprint, named
from .together import Before, Together
from .update_record import Update

__all__ = ["Window", "refuse_settings", "walk_back"]


def refuse_settings(steps: int, product: str, adam: str, scaler: Any, optimizers: Together, processes: int) -> None:
    """Raise ValueError where several steps cannot be differentiated, naming the way out."""
    if isinstance(steps, bool) or steps < 1:
        raise ValueError(f"steps={steps!r}: allowed is a whole number of at least 1")
    if steps == 1:
        return
    reasons = {
        f"product={product!r}: an earlier step's derivative needs the Hessian of the later ones, which only 'unroll' "
        "keeps; choose product='unroll'": product != "unroll",
        "adam='frozen': its moments are part of the way; choose adam='exact'": adam != "exact",
        "a GradScaler: compute in bfloat16 or float32 without one": scaler is not None,
        "several processes: run it in one, or set steps=1": processes > 1,
    }
    for reason, wrong in reasons.items():
        if wrong:
            raise ValueError(f"steps={steps} with {reason}")
    for live in optimizers.lives:
        for group in live.param_groups:
            _functional(type(live), group)
            for p in group["params"]:
                if p.dtype not in (torch.float32, torch.float64):
                    raise ValueError(
                        f"steps={steps} with parameters in {p.dtype}: keep them in float32, under autocast"
                    )


class Window:
    """The updates since the last hypergradient, the last `length` of them; the one in progress is not among them."""

    def __init__(self, length: int) -> None:
        self.length = length
        self.past: list[Update] = []
        self._buffers: dict[Tensor, Tensor] = {}

    def clear(self, buffers: Sequence[Tensor]) -> None:
        """A new window begins."""
        self.past = []
        # Copies: batch norm writes to its statistics without torch's counting it.
        self._buffers = {b: b.clone() for b in buffers if b.is_floating_point()} if self.length > 1 else {}

    def add(self, update: Update) -> None:
        """An update was taken, and another one begins.

        Raises:
            RuntimeError: a parameter was changed in between.
        """
        assert update.taken is not None, "it was"
        moved = [p for p, kept in update.taken.written.items() if fingerprint(p) != kept]
        if moved:
            raise RuntimeError(
                f"{named(moved, update.taken.names)}: changed between two updates of one window (another optimizer, a "
                "constraint), which the hypergradient would not know of; give Lookahead all optimizers and the "
                "projection, or change parameters after backward_outer only"
            )
        self.past = [*self.past, update][-(self.length - 1) :]

    def refuse_buffers(self, names: Mapping[Tensor, str]) -> None:
        """Raise where a buffer carries θ_k, and with it φ, past the derivative."""
        changed = [b for b, kept in self._buffers.items() if not torch.equal(b, kept)]
        if changed:
            raise RuntimeError(
                f"{named(changed, names)}: a buffer that the inner passes have written to (batch norm's running "
                "statistics), which depends on the weights by way of earlier steps; put such layers into eval() or "
                "give them track_running_stats=False"
            )


def walk_back(
    updates: Sequence[Update],
    vector: dict[Tensor, Tensor],
    judge: Callable[[Update, TakenStep, dict[Tensor, Tensor]], Tensor | None],
) -> Tensor | None:
    """-Σ_k Σ_i c_ik d_ik, the d held; None where one is not finite. judge(update, step, u) gives one update's share."""
    total: Tensor | None = None
    carried: dict[Tensor, dict[str, Tensor]] = {}
    later: Before | None = None
    place: dict[Tensor, Tensor] = {}  # where each parameter was after the step at hand; live ones where it says nothing
    for number, update in reversed(list(enumerate(updates))):
        taken, before = update.taken, update.before
        assert taken is not None, "every update of a window was taken"
        assert before is not None, "and what was before it kept"
        _refuse(update, taken)
        vector = taken.through_projection(vector)
        by_params, by_grads, by_moments = _adjoint(taken, before, later, place, vector, carried)
        cotangent = taken.through_clip({p: -g for p, g in by_grads.items()})
        batches: Any = update.batches  # of `unroll`, which alone knows of Hessians
        for batch in batches:
            batch.recorder.wants_hessian = number > 0
        share = judge(update, taken, cotangent)
        if share is None:
            return None
        total = share if total is None else total + share
        vector = {**vector, **by_params}
        for batch in batches:
            for p, h in batch.recorder.hessian.items():
                vector[p] = vector[p] - h if p in vector else -h
        carried, later, place = by_moments, before, {**place, **before.theta}
    return total


def _refuse(update: Update, taken: TakenStep) -> None:
    if update.ledger.unweighted:
        raise RuntimeError(
            "gradient declared by lookahead.unweighted() or by inner(record=False) has a Hessian of its own that no "
            "record holds; with steps > 1 put the term into the losses, with a coefficient that is constant"
        )
    for batch in update.batches:
        assert batch.coefficients is not None, "inner() has seen to it"
        if any(update.sites.holds(leaf) for leaf in leaves(batch.coefficients)):
            raise RuntimeError(
                "the coefficients depend on the model's own parameters (a weigher that reads its features), which have "
                "moved with the weights; with steps > 1 detach what the weigher reads"
            )
    written = [p for p, (g, version) in taken.gradients.items() if g._version != version]
    if written:
        raise RuntimeError(
            f"{named(written, taken.names)}: .grad of an earlier update was written to; call optimizer.zero_grad() "
            "with set_to_none=True (the default) between updates"
        )


def _adjoint(
    taken: TakenStep,
    before: Before,
    later: Before | None,
    place: Mapping[Tensor, Tensor],
    vector: Mapping[Tensor, Tensor],
    carried: Mapping[Tensor, Mapping[str, Tensor]],
) -> tuple[dict[Tensor, Tensor], dict[Tensor, Tensor], dict[Tensor, dict[str, Tensor]]]:
    """Cotangents of θ, g̃ and the moments of one step, from those of θ' and of the moments after it."""
    by_params: dict[Tensor, Tensor] = {}
    by_grads: dict[Tensor, Tensor] = {}
    by_moments: dict[Tensor, dict[str, Tensor]] = {}
    groups, wrong = taken.groups, list[Tensor]()
    for p, (kind, number) in before.kinds.items():
        optimizer = _functional(kind, groups[number])
        state = before.state[p]
        old = {n: _moment(state.get(n), optimizer.first_moment(n, p)) for n in optimizer.moment_names()}
        t = _count(state) if "step" in state else int(state.get("momentum_buffer") is not None)

        def step(
            theta: Tensor, grad: Tensor, old: dict[str, Tensor], optimizer: Any = optimizer, t: int = t
        ) -> tuple[Tensor, dict[str, Tensor]]:
            moments = {name: {"": moment} for name, moment in old.items()}
            new, after = optimizer.update({"": theta}, {"": grad}, State(t, moments))
            return new[""], {name: moment[""] for name, moment in after.moments.items()}

        theta, grad = before.theta[p], taken.gradient(p)
        moved, after = step(theta, grad, old)
        stepped = taken.stepped(p)  # itself where it was not projected
        if _differs(moved, place.get(p, p) if stepped is p else stepped, theta) or _cut(after, later, p):
            wrong.append(p)
        held = carried.get(p, {})
        cotangent = (
            vector.get(p, torch.zeros_like(p)).to(p.dtype),
            {name: held.get(name, torch.zeros_like(moment)) for name, moment in after.items()},
        )
        by_params[p], by_grads[p], by_moments[p] = vjp(step, theta, grad, old)(cotangent)
    if wrong:
        raise RuntimeError(
            f"{named(wrong, taken.names)}: not where the optimizer's formula puts it, or the optimizer's state was "
            "changed between two updates of one window (a hook, a loaded state); change both after backward_outer only"
        )
    return by_params, by_grads, by_moments


def _moment(kept: Any, fresh: Tensor) -> Tensor:
    return kept.to(fresh.dtype) if isinstance(kept, Tensor) else fresh


def _count(state: Mapping[str, Any]) -> int:
    return int(state["step"])


def _differs(found: Tensor, expected: Tensor, theta: Tensor) -> bool:
    """Beyond rounding: that of θ' itself, and a thousandth of the way (Adam's first step divides two roundings)."""
    eps = torch.finfo(found.dtype).eps
    bound = 16 * eps * (theta.abs() + found.abs()) + 1e-3 * (found - theta).abs() + 1e-12
    return bool(((found - expected.detach()).abs() > bound).any())


def _cut(after: Mapping[str, Tensor], later: Before | None, p: Tensor) -> bool:
    """Whether the next step began from other moments than this one has left."""
    if later is None or p not in later.state:
        return False
    for name, moment in after.items():
        kept = later.state[p].get(name)
        if not isinstance(kept, Tensor):
            return True
        if bool(((moment - kept).abs() > 1e-4 * moment.abs().max() + 1e-30).any()):
            return True
    return False


def _functional(kind: type, group: Mapping[str, Any]) -> Any:
    """The functional optimizer of a group's settings."""
    at: dict[str, Any] = {k: v.item() if isinstance(v, Tensor) and v.ndim == 0 else v for k, v in group.items()}
    beta = [float(b) for b in at.get("betas", ())]
    adam: dict[str, Any] = {
        "lr": at["lr"],
        "betas": (*beta,),
        "eps": at.get("eps"),
        "weight_decay": at.get("weight_decay"),
    }
    maximize = bool(at.get("maximize", False))
    if kind is torch.optim.SGD:
        keys = ("lr", "momentum", "dampening", "nesterov", "weight_decay")
        return SGD(**{key: at[key] for key in keys}, maximize=maximize)
    if kind in (torch.optim.Adam, torch.optim.AdamW):
        decoupled = at.get("decoupled_weight_decay", kind is torch.optim.AdamW)
        return (AdamW if decoupled else Adam)(**adam, amsgrad=at["amsgrad"], maximize=maximize)
    if kind is torch.optim.NAdam and not at.get("decoupled_weight_decay"):
        return NAdam(**adam, momentum_decay=at["momentum_decay"], maximize=maximize)
    if kind is torch.optim.RMSprop:
        keys = ("lr", "alpha", "eps", "weight_decay", "momentum", "centered")
        return RMSprop(**{key: at[key] for key in keys}, maximize=maximize)
    if kind is torch.optim.Adagrad:
        keys = ("lr", "lr_decay", "weight_decay", "initial_accumulator_value", "eps")
        return Adagrad(**{key: at[key] for key in keys}, maximize=maximize)
    raise ValueError(
        f"steps > 1 with {kind.__name__}: known here are SGD, Adam, AdamW, NAdam (its L2 kind), RMSprop and Adagrad; "
        "use one of them, or steps=1"
    )
