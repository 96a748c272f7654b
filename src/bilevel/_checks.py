"""Checks of settings, shared by methods, solvers and optimizers."""

import math


def number(owner: str, field: str, value: object, *, above: float | None = None, least: float | None = None) -> None:
    """Raise ValueError unless `value` is a finite number, greater than `above` and not less than `least`."""
    bounds = [] if above is None else [f"greater than {above:g}"]
    bounds += [] if least is None else [f"at least {least:g}"]
    allowed = " and ".join(["a finite number", *bounds])
    if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
        raise ValueError(f"{owner}({field}={value!r}): allowed is {allowed}")
    if (above is not None and value <= above) or (least is not None and value < least):
        raise ValueError(f"{owner}({field}={value!r}): allowed is {allowed}")


def count(owner: str, field: str, value: object, *, optional: bool = False) -> None:
    """Raise ValueError unless `value` is a whole number of at least 1 (or None where `optional`)."""
    if optional and value is None:
        return
    if isinstance(value, bool) or not isinstance(value, int) or value < 1:
        raise ValueError(f"{owner}({field}={value!r}): allowed is a whole number of at least 1{' or None' * optional}")


def choice(owner: str, field: str, value: object, allowed: tuple[str, ...]) -> None:
    """Raise ValueError unless `value` is one of `allowed`."""
    if value not in allowed:
        raise ValueError(f"{owner}({field}={value!r}): allowed is one of {', '.join(map(repr, allowed))}")


def clip_norm(owner: str, value: object) -> None:
    """Raise ValueError unless `value` is None or a positive number."""
    if value is not None:
        number(owner, "clip_norm", value, above=0.0)
