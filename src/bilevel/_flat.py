"""A problem and a method over trees of tensors, as the same ones over flat dictionaries."""

from collections.abc import Callable, Mapping
from dataclasses import fields, is_dataclass, replace
from typing import Any, TypeVar, cast

from ._nested import Nested, Tree
from ._types import Tensors
from .optimizers.optimizer import PerStep
from .problem import Bilevel
from .result import Result
from .root import Root

T = TypeVar("T")


def flat_problem(problem: Bilevel | Root, params: Tree, hyper: Tree) -> Bilevel | Root:
    """The same problem over flat dictionaries."""

    def loss(function: Callable[..., T]) -> Callable[[Tensors, Tensors, Any], T]:
        return lambda at, by, batch: function(params.build(at), hyper.build(by), batch)

    if isinstance(problem, Root):
        owner, root = type(problem).__name__, loss(problem.function)

        def function(at: Tensors, by: Tensors, batch: Any) -> Tensors:
            return params.flatten(f"{owner}.function", root(at, by, batch))

        return replace(problem, function=function, outer=loss(problem.outer))
    start = problem.start

    def flat_start(by: Tensors) -> Tensors:
        return params.flatten("Bilevel.start", cast(Any, start)(hyper.build(by)))

    losses: dict[str, Any] = {"inner": loss(problem.inner), "outer": loss(problem.outer)}
    return replace(problem, **losses, start=None if start is None else flat_start)


def flat_method(method: T, params: Tree, hyper: Tree) -> T:
    """The same method, the functions among its optimizer's settings taking and giving flat dictionaries."""
    optimizer = getattr(method, "optimizer", None)
    if optimizer is None or not is_dataclass(optimizer):
        return method
    return replace(cast(Any, method), optimizer=_flat_optimizer(optimizer, params, hyper))


def _flat_optimizer(optimizer: Any, params: Tree, hyper: Tree) -> Any:
    changes: dict[str, Any] = {}
    for field in fields(optimizer):
        value = getattr(optimizer, field.name)
        if field.name == "optimizer":
            changes[field.name] = _flat_optimizer(value, params, hyper)
        elif field.name == "projection":
            changes[field.name] = _flat_projection(value, params, hyper)
        elif isinstance(value, tuple):
            changes[field.name] = tuple(_flat_setting(part, hyper) for part in cast(tuple[Any, ...], value))
        else:
            changes[field.name] = _flat_setting(value, hyper)
    return replace(optimizer, **changes)


def _flat_projection(projection: Callable[[Any, Any], Any], params: Tree, hyper: Tree) -> Callable[..., Tensors]:
    def flat(at: Tensors, by: Tensors) -> Tensors:
        return Tree.of("the projection", projection(params.build(at), hyper.build(by)))[1]

    return flat


def _flat_setting(setting: Any, hyper: Tree) -> Any:
    def value(given: Any) -> Any:
        return _per_parameter(given) if isinstance(given, Mapping | list) else given

    def at_step(by: Tensors, step: int) -> Any:
        return value(setting.function(hyper.build(by), step))

    def at(by: Tensors) -> Any:
        return value(setting(hyper.build(by)))

    if isinstance(setting, PerStep):
        return PerStep(at_step)
    return at if callable(setting) else value(setting)


def _per_parameter(tree: Nested) -> dict[str, Any]:
    """A tree of numbers built like params, by flat name."""
    found: dict[str, Any] = {}

    def walk(node: Any, name: str) -> None:
        inside = f"{name}." if name else ""
        if isinstance(node, Mapping):
            for key, value in cast(Mapping[Any, Any], node).items():
                walk(value, f"{inside}{key}")
        elif isinstance(node, list | tuple):
            for place, value in enumerate(cast(list[Any], node)):
                walk(value, f"{inside}{place}")
        else:
            found[name] = node

    walk(tree, "")
    return found


def nested_result(result: Result, params: Tree, hyper: Tree) -> Result:
    """The result with `grad` built like hyper and `params` like params; the state stays flat."""
    return replace(result, grad=hyper.build(result.grad), params=params.build(result.params))
