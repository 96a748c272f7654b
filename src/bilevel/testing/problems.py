"""All known problems by name."""

from collections.abc import Callable

from .known import KnownProblem
from .quadratic import quadratic
from .reweighted import reweighted
from .ridge import ridge
from .step_size import step_size
from .toy import toy

PROBLEMS: dict[str, Callable[..., KnownProblem]] = {
    "quadratic": quadratic,
    "ridge": ridge,
    "reweighted": reweighted,
    "step_size": step_size,
    "toy": toy,
}
"""Each takes `dtype` and settings of its own."""
