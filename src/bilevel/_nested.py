"""`hypergradient` over nested dictionaries: the same problem and method over flat ones, and the result as they came."""

from collections.abc import Callable
from copy import copy
from dataclasses import dataclass, replace
from typing import Any, cast

from ._layout import flatten
from ._types import Tensors
from .optimizers.optimizer import Optimizer, State
from .problem import Bilevel
from .result import Result
from .root import Root


@dataclass(frozen=True)
class _Viewing:
    """An optimizer whose settings are functions of the nested hyper."""

    optimizer: Optimizer
    nested: Callable[[Tensors], Any]

    def init(self, params: Tensors) -> State:
        return self.optimizer.init(params)

    def update(
        self, params: Tensors, grads: Tensors, state: State, hyper: Tensors | None = None
    ) -> tuple[Tensors, State]:
        return self.optimizer.update(params, grads, state, None if hyper is None else self.nested(hyper))


def flat_problem(problem: Any, params: Callable[[Tensors], Any], hyper: Callable[[Tensors], Any]) -> Any:
    """The same problem over flat dictionaries."""

    def over(function: Callable[..., Any]) -> Callable[..., Any]:
        def call(flat_params: Tensors, flat_hyper: Tensors, batch: Any) -> Any:
            return function(params(flat_params), hyper(flat_hyper), batch)

        return call

    if isinstance(problem, Root):
        function = over(problem.function)

        def flat_function(flat_params: Tensors, flat_hyper: Tensors, batch: Any) -> Tensors:
            return flatten(function(flat_params, flat_hyper, batch))

        return replace(problem, function=flat_function, outer=over(problem.outer))
    start = cast(Bilevel, problem).start

    def flat_start(flat_hyper: Tensors) -> Tensors:
        assert start is not None
        return flatten(start(hyper(flat_hyper)))

    over_start = None if start is None else flat_start
    return replace(problem, inner=over(problem.inner), outer=over(problem.outer), start=over_start)


def flat_method(method: Any, hyper: Callable[[Tensors], Any]) -> Any:
    """The same method, whose optimizer's settings still see hyper as it came."""
    optimizer = getattr(method, "optimizer", None)
    if optimizer is None:
        return method
    viewing = copy(method)  # not replace: the settings were checked when the method was built
    object.__setattr__(viewing, "optimizer", _Viewing(optimizer, hyper))
    return viewing


def nested_result(result: Result, params: Callable[[Tensors], Any], hyper: Callable[[Tensors], Any]) -> Result:
    """`grad` and `params` nested as they came."""
    return replace(result, grad=hyper(result.grad), params=params(result.params))
