"""Several inner updates and the exact derivative through all of them, by the functional engine.

`bilevel.Lookahead` differentiates the one step that a live optimizer has just taken. Where the outer problem is to look
further ahead (`hypergradient.unroll`), or the weigher's input is not cut from the PRM (`hypergradient.detach=false`),
the updates are taken as pure functions instead and their result is put back into the live model and optimizer, whose
trajectory is the same.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn
from torch.func import functional_call
from torch.nn.attention import SDPBackend, sdpa_kernel

from bilevel import SGD, Adam, AdamW, Bilevel, State, Status, Unrolled, hypergradient
from dreamprm.choices import Precision
from dreamprm.config.schema import TrainConfig
from dreamprm.errors import ConfigError
from dreamprm.loss import example_losses, outer_loss
from dreamprm.phases.bilevel_phase import BilevelPhase
from dreamprm.phases.phase import Made
from dreamprm.phases.state import Run
from dreamprm.prm.collate import Batch
from dreamprm.setting import arguments_of
from dreamprm.weigher import from_batch
from dreamprm.weigher.instance_table import InstanceTableSettings

__all__ = ["UnrolledPhase", "check_unrolled", "is_unrolled"]

Tensors = dict[str, Tensor]


def is_unrolled(settings: TrainConfig) -> bool:
    """Whether these settings need the functional engine."""
    return settings.hypergradient.unroll > 1 or not settings.hypergradient.detach


def check_unrolled(settings: TrainConfig) -> None:
    """Raises ConfigError for combinations that the functional engine does not have, with the way out."""
    if not is_unrolled(settings):
        return
    why = "hypergradient.unroll > 1" if settings.hypergradient.unroll > 1 else "hypergradient.detach=false"
    if settings.hypergradient.unroll > settings.outer.every:
        raise ConfigError(
            f"hypergradient.unroll={settings.hypergradient.unroll} is more than outer.every={settings.outer.every}: "
            "the outer update looks back over the inner updates since the last one; raise outer.every"
        )
    if settings.inner.optimizer.kind not in ("adamw", "adam", "sgd"):
        raise ConfigError(
            f"{why} needs optimizer@inner.optimizer=adamw, adam or sgd, not {settings.inner.optimizer.kind}"
        )
    if settings.precision is not Precision.fp32:
        raise ConfigError(f"{why} needs precision=fp32, not {settings.precision}")
    if settings.outer.accumulate > 1:
        raise ConfigError(f"{why} needs outer.accumulate=1, not {settings.outer.accumulate}; raise outer.batch_size")
    if isinstance(settings.weigher, InstanceTableSettings) and settings.weigher.sparse:
        raise ConfigError(f"{why} needs weigher.sparse=false and optimizer@outer.optimizer=adam")


class UnrolledPhase(BilevelPhase):
    """Windows of `unroll` inner updates, each ending with an outer one; plain updates between them."""

    def update(self) -> Made:
        update = self.run.update - self.run.num_before
        if self.weighing is None or not self._window_begins(update):
            return Made(self.inner_update(update, record=False))
        numbers, status = self._window(self.set_inner_lr(update))
        return Made(numbers | self.weighing.step(update, status), self.run.settings.hypergradient.unroll)

    def _window_begins(self, update: int) -> bool:
        """Whether the next `unroll` updates end with an outer one."""
        settings, end = self.run.settings, update + self.run.settings.hypergradient.unroll
        fits = end <= settings.inner.updates and end % settings.outer.every == 0
        return update >= settings.outer.begin and fits

    def _window(self, lr: float) -> tuple[dict[str, float], Status]:
        """Take `unroll` inner updates and one outer loss; the weigher's `.grad` gets the derivative.

        Returns the numbers to log and the status of the derivative; where it is not finite `.grad` stays empty.
        """
        run, settings = self.run, self.run.settings
        size = settings.inner.batch_size * settings.inner.accumulate
        drawn = run.draw("inner", run.train, size, settings.hypergradient.unroll)
        batches = [run.batch(run.train, rows) for rows in drawn]
        (rows,) = run.draw("outer", run.meta, settings.outer.batch_size)
        meta = run.batch(run.meta, rows)
        live = run.trainable()
        seen: list[tuple[Tensor, Tensor]] = []
        problem = Bilevel(inner=_inner(run, seen), outer=_outer(run))
        method = Unrolled(_functional(settings, lr), clip_norm=settings.inner.clip_norm, product="vjp")
        params = {name: value.detach() for name, value in live.items()}
        hyper = {name: value.detach() for name, value in run.weigher.named_parameters()}
        # Fused attention cannot be differentiated twice.
        with sdpa_kernel(SDPBackend.MATH):
            state = self._read_state(live)
            result = hypergradient(problem, params, hyper, batches, meta, method=method, state=state)
        with torch.no_grad():
            for name, value in live.items():
                value.copy_(result.params[name])
        self._write_state(live, result.state)
        for name, value in run.weigher.named_parameters():
            value.grad = result.grad[name].detach().clone()
        # The first call of every inner loss is the update's own; later ones are its derivatives.
        losses, weights = (torch.cat([pair[place] for pair in seen[: len(batches)]]) for place in (0, 1))
        numbers = {
            "inner_loss": losses.mean().item(),
            "weight_mean": weights.mean().item(),
            "weight_std": weights.std(correction=0).item(),
            "lr": lr,
            "outer_loss": result.outer_loss.item(),
        }
        return numbers, result.status

    def _moments(self) -> list[str]:
        settings = self.run.settings.inner.optimizer
        if settings.kind != "sgd":
            return ["exp_avg", "exp_avg_sq"]
        return ["momentum_buffer"] if getattr(settings, "momentum", 0.0) else []

    def _read_state(self, live: Mapping[str, nn.Parameter]) -> State | None:
        """The live optimizer's state as the functional engine's; None before the first update."""
        states = {name: self.optimizer.state.get(value) for name, value in live.items()}
        if not all(states.values()):
            return None
        moments = {
            moment: {name: state[moment] for name, state in states.items() if state} for moment in self._moments()
        }
        first = next(iter(states.values())) or {}
        return State(int(first.get("step", 1)), moments)

    def _write_state(self, live: Mapping[str, nn.Parameter], result: State) -> None:
        for name, value in live.items():
            entry: dict[str, Any] = {
                moment: result.moments[moment][name].detach().clone() for moment in self._moments()
            }
            if self.run.settings.inner.optimizer.kind != "sgd":
                entry["step"] = torch.tensor(float(result.step))
            self.optimizer.state[value] = entry


def _inner(run: Run, seen: list[tuple[Tensor, Tensor]]) -> Any:
    detach = run.settings.hypergradient.detach

    def inner(params: Tensors, hyper: Tensors, batch: Batch) -> Tensor:
        logits = functional_call(run.prm, params, (batch,))
        losses = example_losses(logits, batch, run.settings.inner.loss)
        weights = functional_call(run.weigher, hyper, (from_batch(batch, logits, losses, detach=detach),))
        seen.append((_plain(losses), _plain(weights)))
        return (losses * weights).sum() / len(losses)

    return inner


def _outer(run: Run) -> Any:
    outer = run.settings.outer

    def loss(params: Tensors, hyper: Tensors, batch: Batch) -> Tensor:
        return outer_loss(functional_call(run.prm, params, (batch,)), batch, outer.aggregate, outer.loss)

    return loss


def _plain(value: Tensor) -> Tensor:
    """The value without the wrappers of the transforms around it, to log."""
    while (inner := torch.func.debug_unwrap(value, recurse=False)) is not value:
        value = inner
    return value.detach()


def _functional(settings: TrainConfig, lr: float) -> SGD | Adam:
    given = arguments_of(settings.inner.optimizer, "lr")
    if "betas" in given:
        given["betas"] = tuple(given["betas"])
    return {"sgd": SGD, "adam": Adam, "adamw": AdamW}[settings.inner.optimizer.kind](lr=lr, **given)
