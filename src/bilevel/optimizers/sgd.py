"""Stochastic gradient descent."""

from dataclasses import dataclass

from .. import _checks as checks
from .. import _tree as tree
from .._types import Tensors
from .optimizer import Setting, State, check_setting, is_zero, resolve


@dataclass(frozen=True)
class SGD:
    """torch.optim.SGD as pure functions.

    g' = g + weight_decay θ;  b' = momentum b + (1 - dampening) g', at the first update b' = g';
    θ' = θ - lr b', with Nesterov θ - lr (g' + momentum b'), without momentum θ - lr g'.

    Args:
        lr: learning rate; a `Setting`, so it can be taken from hyper.
        momentum, dampening, nesterov, maximize: as in torch.optim.SGD.
        weight_decay: L2 penalty; a `Setting`.

    Raises:
        ValueError: a setting out of range, when built.
    """

    lr: Setting
    momentum: float = 0.0
    dampening: float = 0.0
    nesterov: bool = False
    weight_decay: Setting = 0.0
    maximize: bool = False

    def __post_init__(self) -> None:
        check_setting("SGD", "lr", self.lr)
        check_setting("SGD", "weight_decay", self.weight_decay)
        checks.number("SGD", "momentum", self.momentum, least=0.0)
        checks.number("SGD", "dampening", self.dampening)
        if self.nesterov and (self.momentum == 0 or self.dampening != 0):
            raise ValueError(
                f"SGD(nesterov=True, momentum={self.momentum}, dampening={self.dampening}): "
                "Nesterov needs a momentum above 0 and no dampening"
            )

    def init(self, params: Tensors) -> State:
        """Buffers of zeros; the first update overwrites them with the gradient, as torch does."""
        return State(0, {"momentum_buffer": tree.zeros_like(params)} if self.momentum else {})

    def update(
        self, params: Tensors, grads: Tensors, state: State, hyper: Tensors | None = None
    ) -> tuple[Tensors, State]:
        """One update: new parameters and state."""
        lr = resolve("SGD", "lr", self.lr, params, hyper)
        if self.maximize:
            grads = tree.scale(grads, -1.0)
        if not is_zero(self.weight_decay):
            decay = resolve("SGD", "weight_decay", self.weight_decay, params, hyper)
            grads = {name: grad + decay[name] * params[name] for name, grad in grads.items()}
        if not self.momentum:
            return {name: param - lr[name] * grads[name] for name, param in params.items()}, State(state.step + 1)
        buffer = grads
        if state.step:
            old = state.moments["momentum_buffer"]
            buffer = {name: self.momentum * old[name] + (1 - self.dampening) * grad for name, grad in grads.items()}
        direction = tree.add(grads, buffer, self.momentum) if self.nesterov else buffer
        new = {name: param - lr[name] * direction[name] for name, param in params.items()}
        return new, State(state.step + 1, {"momentum_buffer": buffer})
