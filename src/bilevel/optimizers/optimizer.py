"""What an inner optimizer is: two pure functions, and settings that may depend on hyper."""

from abc import abstractmethod
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, ClassVar, Protocol, TypeAlias, cast, runtime_checkable

import torch
from torch import Tensor

from .. import _checks as checks
from .._types import Tensors

Number: TypeAlias = float | Tensor
Value: TypeAlias = Number | Mapping[str, Number]


@dataclass(frozen=True)
class PerStep:
    """A setting that changes from update to update: function(hyper, k) -> its value at the k-th update, k from 0.

    `lr=PerStep(lambda hyper, k: hyper["rates"][k])` learns one rate per step.
    """

    function: Callable[[Tensors, int], Value]


Setting: TypeAlias = Value | Callable[[Tensors], Value] | PerStep
"""A number, a tensor, a mapping {parameter name: number or tensor}, a function of hyper that gives one of these, or a
`PerStep`.

`lr=lambda hyper: hyper["log_lr"].exp()` makes the learning rate what is differentiated;
`weight_decay=lambda hyper: {"weight": hyper["decay"][0], "bias": 0.0}` a weight decay per parameter.
"""


@dataclass(frozen=True)
class State:
    """An inner optimizer's state: updates taken so far, and its moments by torch.optim's names."""

    step: int = 0
    moments: dict[str, Tensors] = field(default_factory=dict[str, Tensors])
    skipped: dict[str, int] = field(default_factory=dict[str, int])
    """By parameter: in how many of the updates it had no gradient and was left alone, as torch.optim does."""


@runtime_checkable
class Optimizer(Protocol):
    """A pure, differentiable optimizer."""

    def init(self, params: Tensors) -> State:
        """The state before the first update."""
        ...

    def update(
        self, params: Tensors, grads: Tensors, state: State, hyper: Tensors | None = None
    ) -> tuple[Tensors, State]:
        """New parameters and state; the arguments stay as they are.

        A parameter that `grads` does not name has no gradient, because the loss does not use it: torch.optim leaves
        it as it is, weight decay and momentum included.
        """
        ...


class PerParameter:
    """The part that all optimizers here share: `move` is the update of one tensor."""

    moments: ClassVar[tuple[str, ...]] = ()
    decoupled: ClassVar[bool] = False
    """Weight decay shrinks the parameter instead of being added to the gradient."""

    @abstractmethod
    def settings(self) -> dict[str, Setting]:
        """Every setting that may come from hyper, by name; `lr` and `weight_decay` among them."""

    @abstractmethod
    def move(self, param: Tensor, grad: Tensor, old: Tensors, at: dict[str, Number], t: int) -> tuple[Tensor, Tensors]:
        """New parameter and moments of one tensor, at its t-th update, t from 1; `at`: the settings' values here."""

    def moment_names(self) -> tuple[str, ...]:
        """The moments that are kept, in torch.optim's words."""
        return self.moments

    def first_moment(self, name: str, param: Tensor) -> Tensor:
        """A moment before the first update."""
        return torch.zeros_like(param)

    def init(self, params: Tensors) -> State:
        """The state before the first update."""
        return State(
            0, {n: {key: self.first_moment(n, param) for key, param in params.items()} for n in self.moment_names()}
        )

    def update(
        self, params: Tensors, grads: Tensors, state: State, hyper: Tensors | None = None
    ) -> tuple[Tensors, State]:
        """One update: new parameters and state; a parameter without a gradient stays as it is."""
        owner, settings = type(self).__name__, self.settings()
        values = {name: resolve(owner, name, value, params, hyper, state.step) for name, value in settings.items()}
        decays = not is_zero(settings["weight_decay"])
        new, moments = dict(params), {name: dict(moment) for name, moment in state.moments.items()}
        skipped = dict(state.skipped)
        for key, param in params.items():
            if key not in grads:
                skipped[key] = skipped.get(key, 0) + 1
                continue
            at = {name: value[key] for name, value in values.items()}
            grad = -grads[key] if getattr(self, "maximize", False) else grads[key]
            if decays and self.decoupled:
                param = param * (1 - at["lr"] * at["weight_decay"])
            elif decays:
                grad = grad + at["weight_decay"] * param
            t = state.step + 1 - skipped.get(key, 0)
            new[key], after = self.move(param, grad, {n: state.moments[n][key] for n in self.moment_names()}, at, t)
            for name, moment in after.items():
                moments[name][key] = moment
        return new, State(state.step + 1, moments, skipped)


def check_optimizer(owner: str, value: object) -> None:
    """Raise ValueError unless `value` is an inner optimizer."""
    if isinstance(value, type) or not isinstance(value, Optimizer):
        raise ValueError(
            f"{owner}(optimizer={value!r}): allowed is a functional optimizer such as bilevel.SGD(lr=0.1); "
            "for a live torch.optim optimizer use bilevel.Lookahead"
        )


def check_setting(
    owner: str, name: str, setting: object, *, least: float | None = 0.0, above: float | None = None, below: float = 0.0
) -> None:
    """Raise ValueError unless `setting` is a number in range, a real tensor, a mapping of those, or a function.

    below: where not 0, the number must be smaller.
    """
    if callable(setting) or isinstance(setting, PerStep):
        return
    values: list[Any] = [*setting.values()] if isinstance(setting, Mapping) else [setting]
    for value in values:
        if not isinstance(value, Tensor):
            checks.number(owner, name, value, least=None if above is not None else least, above=above)
            if below and value >= below:
                raise ValueError(f"{owner}({name}={value!r}): allowed is a finite number below {below:g}")
        elif not value.is_floating_point():
            raise ValueError(f"{owner}({name}=…): a tensor of {value.dtype}; allowed is a floating-point tensor")


def check_betas(owner: str, betas: tuple[Setting, Setting]) -> None:
    """Raise ValueError unless `betas` is two settings, numbers among them at least 0 and below 1."""
    if not isinstance(betas, tuple | list) or len(betas) != 2:  # pyright: ignore[reportUnnecessaryIsInstance]
        raise ValueError(f"{owner}(betas={betas!r}): allowed is two numbers or settings, each at least 0 and below 1")
    for beta in betas:
        check_setting(owner, "betas", beta, below=1.0)


def is_zero(setting: object) -> bool:
    """Whether the setting is the plain number 0, so that its term can be left out."""
    return isinstance(setting, int | float) and setting == 0


def resolve(
    owner: str, name: str, setting: Setting, params: Tensors, hyper: Tensors | None, step: int = 0
) -> dict[str, Number]:
    """The setting's value for each parameter, at the update after `step` others.

    Raises:
        ValueError: a function without hyper, a mapping that leaves a parameter out or names one that is not there.
    """
    if callable(setting) or isinstance(setting, PerStep):
        if hyper is None:
            raise ValueError(f"{owner}({name}=function): pass hyper to update(params, grads, state, hyper)")
        setting = setting.function(hyper, step) if isinstance(setting, PerStep) else setting(hyper)
    if isinstance(setting, Mapping):
        differing = sorted(set(setting) ^ set(params))
        if differing:
            raise ValueError(
                f"{owner}({name}=mapping): {', '.join(differing)} in only one of mapping and params; "
                "name every parameter once"
            )
        return {key: _cast(setting[key], params[key]) for key in params}
    return {key: _cast(setting, tensor) for key, tensor in params.items()}


def _cast(value: Number, param: Tensor) -> Number:
    return value.to(param.dtype) if isinstance(value, Tensor) else value


def correction(beta: Number, t: int) -> Number:
    """1 - β^t, in double precision: in float32 it would lose four digits at t = 1."""
    return 1 - beta**t if not isinstance(beta, Tensor) else (1 - beta.double() ** t).to(beta.dtype)


def root(value: Tensor) -> Tensor:
    """The square root, its derivative taken as 0 where it is 0: an exact 0 among the gradients gives no NaN."""
    # where twice: the inner one keeps the infinite derivative at 0 out of the product inf * 0 = NaN.
    zero = value == 0  # not "> 0", which would turn NaN into 0
    return torch.where(zero, 0.0, torch.where(zero, 1.0, value).sqrt())


def check_fixed(owner: str, optimizer: object) -> None:
    """Raise ValueError if a setting of the optimizer comes from hyper, for methods that cannot differentiate it."""
    if hasattr(optimizer, "projection"):
        raise ValueError(
            f"{owner}(optimizer=Projected(…)): with a constraint the inner minimum is no root of the inner gradient; "
            "use Implicit on a FixedPoint of proximal_map(inner, projection, rate), or differentiate the steps by "
            "Unrolled"
        )
    for name, value in vars(optimizer).items():
        parts = cast(tuple[Any, ...], value) if isinstance(value, tuple) else (value,)
        if any(callable(part) or isinstance(part, PerStep) for part in parts):
            raise ValueError(
                f"{owner}(optimizer={type(optimizer).__name__}({name}=function)): at the inner minimum the "
                f"hypergradient does not depend on {name}; give a number, or differentiate it by OneStep, Unrolled "
                "or ForwardMode"
            )
