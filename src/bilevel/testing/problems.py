"""All known problems by name."""

from collections.abc import Callable

from ._quadratic import quadratic
from ._reweighted import reweighted
from ._ridge import ridge
from ._step_size import step_size
from ._toy import toy
from .known import KnownProblem

PROBLEMS: dict[str, Callable[..., KnownProblem]] = {
    "quadratic": quadratic,
    "ridge": ridge,
    "reweighted": reweighted,
    "step_size": step_size,
    "toy": toy,
}
"""Each takes `dtype` and settings of its own."""
