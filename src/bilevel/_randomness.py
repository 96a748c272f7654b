"""The same random numbers again, so that dropout is one function over all passes of a step."""

from collections.abc import Callable
from typing import Generic, ParamSpec, TypeVar

import torch

P = ParamSpec("P")
T = TypeVar("T")


class Replayed(Generic[P, T]):
    """`function`, drawing in every later call the random numbers of its first one.

    The first call moves the global generators on as usual; later calls leave them where they are.
    """

    def __init__(self, function: Callable[P, T]) -> None:
        self._function = function
        self._states: list[torch.Tensor] | None = None

    def __call__(self, *args: P.args, **kwargs: P.kwargs) -> T:
        if self._states is None:
            self._states = states()
            return self._function(*args, **kwargs)
        now = states()
        restore(self._states)
        try:
            return self._function(*args, **kwargs)
        finally:
            restore(now)


def states() -> list[torch.Tensor]:
    """The states of all generators."""
    cuda = torch.cuda.get_rng_state_all() if torch.cuda.is_initialized() else []
    return [torch.get_rng_state(), *cuda]


def restore(saved: list[torch.Tensor]) -> None:
    """Set all generators to these states."""
    torch.set_rng_state(saved[0])
    if len(saved) > 1:
        torch.cuda.set_rng_state_all(saved[1:])
