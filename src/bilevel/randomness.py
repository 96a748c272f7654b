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
            self._states = _states()
            return self._function(*args, **kwargs)
        now = _states()
        _restore(self._states)
        try:
            return self._function(*args, **kwargs)
        finally:
            _restore(now)


def _states() -> list[torch.Tensor]:
    cuda = torch.cuda.get_rng_state_all() if torch.cuda.is_initialized() else []
    return [torch.get_rng_state(), *cuda]


def _restore(states: list[torch.Tensor]) -> None:
    torch.set_rng_state(states[0])
    if len(states) > 1:
        torch.cuda.set_rng_state_all(states[1:])
