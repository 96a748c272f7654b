"""What an inner optimizer is: two pure functions, and settings that may depend on hyper."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Protocol, TypeAlias, runtime_checkable

from torch import Tensor

from .. import _checks as checks
from .._types import Tensors

Value: TypeAlias = float | Tensor | Mapping[str, float | Tensor]
Setting: TypeAlias = Value | Callable[[Tensors], Value]
"""A number, a tensor, a mapping {parameter name: number or tensor}, or a function of hyper that gives one of these.

`lr=lambda hyper: hyper["log_lr"].exp()` makes the learning rate what is differentiated;
`weight_decay=lambda hyper: {"weight": hyper["decay"][0], "bias": 0.0}` a weight decay per parameter.
"""


@dataclass(frozen=True)
class State:
    """An inner optimizer's state: updates taken so far, and its moments by torch.optim's names."""

    step: int = 0
    moments: dict[str, Tensors] = field(default_factory=dict[str, Tensors])


@runtime_checkable
class Optimizer(Protocol):
    """A pure, differentiable optimizer."""

    def init(self, params: Tensors) -> State:
        """The state before the first update."""
        ...

    def update(
        self, params: Tensors, grads: Tensors, state: State, hyper: Tensors | None = None
    ) -> tuple[Tensors, State]:
        """New parameters and state; the arguments stay as they are."""
        ...


def check_optimizer(owner: str, value: object) -> None:
    """Raise ValueError unless `value` is an inner optimizer."""
    if isinstance(value, type) or not isinstance(value, Optimizer):
        raise ValueError(
            f"{owner}(optimizer={value!r}): allowed is a functional optimizer such as bilevel.SGD(lr=0.1); "
            "for a live torch.optim optimizer use bilevel.Lookahead"
        )


def check_setting(owner: str, name: str, setting: Setting) -> None:
    """Raise ValueError unless `setting` is a number of at least 0, a real tensor, a mapping of those, or a function."""
    if callable(setting):
        return
    values: list[float | Tensor] = [*setting.values()] if isinstance(setting, Mapping) else [setting]
    for value in values:
        if not isinstance(value, Tensor):
            checks.number(owner, name, value, least=0.0)
        elif not value.is_floating_point():
            raise ValueError(f"{owner}({name}=…): a tensor of {value.dtype}; allowed is a floating-point tensor")


def is_zero(setting: Setting) -> bool:
    """Whether the setting is the plain number 0, so that its term can be left out."""
    return isinstance(setting, int | float) and setting == 0


def resolve(
    owner: str, name: str, setting: Setting, params: Tensors, hyper: Tensors | None
) -> dict[str, float | Tensor]:
    """The setting's value for each parameter.

    Raises:
        ValueError: a function without hyper, a mapping that leaves a parameter out or names one that is not there.
    """
    if callable(setting):
        if hyper is None:
            raise ValueError(f"{owner}({name}=function): pass hyper to update(params, grads, state, hyper)")
        setting = setting(hyper)
    if isinstance(setting, Mapping):
        differing = sorted(set(setting) ^ set(params))
        if differing:
            raise ValueError(
                f"{owner}({name}=mapping): {', '.join(differing)} in only one of mapping and params; "
                "name every parameter once"
            )
        return {key: _cast(setting[key], params[key]) for key in params}
    return {key: _cast(setting, tensor) for key, tensor in params.items()}


def _cast(value: float | Tensor, param: Tensor) -> float | Tensor:
    return value.to(param.dtype) if isinstance(value, Tensor) else value


def check_fixed(owner: str, optimizer: object) -> None:
    """Raise ValueError if a setting of the optimizer comes from hyper, for methods that cannot differentiate it."""
    for name, value in vars(optimizer).items():
        if callable(value):
            raise ValueError(
                f"{owner}(optimizer={type(optimizer).__name__}({name}=function)): at the inner minimum the "
                f"hypergradient does not depend on {name}; give a number, or differentiate it by OneStep, Unrolled "
                "or ForwardMode"
            )
