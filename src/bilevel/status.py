"""How a hypergradient or a linear solve ended, in words that help."""

from enum import Enum


class Status(Enum):
    """The end of a computation; the text of a member says what it means and what to change."""

    DONE = "done: every step was taken and nothing had to converge"
    CONVERGED = "converged: the relative residual is within the tolerance"
    ITERATION_LIMIT = (
        "iteration limit: the residual is still above the tolerance; allow more iterations (or terms, or rank), "
        "loosen the tolerance, or add damping"
    )
    NEGATIVE_CURVATURE = (
        "negative curvature: the inner Hessian is not positive definite here; train the inner problem further, "
        "or raise the damping above the most negative eigenvalue"
    )
    BREAKDOWN = (
        "breakdown: the recurrence cannot go on although the residual is above the tolerance; use GMRES or Direct, or "
        "add damping"
    )
    SINGULAR = "singular: the system (the inner Hessian) has no inverse here; regularise the inner loss or add damping"
    DIVERGED = "diverged: the terms of the series grow; make scale smaller than 2 / the largest eigenvalue"
    NOT_FINITE = (
        "not finite: a loss or gradient is infinite or NaN; skip this update, and look at the outer loss, "
        "the inner parameters and the learning rate"
    )

    @property
    def code(self) -> int:
        """Its place among the members: under vmap, where no text can be, statuses are tensors of these."""
        return list(Status).index(self)

    @property
    def ok(self) -> bool:
        """Whether the result is what the method promises."""
        return self in (Status.DONE, Status.CONVERGED)

    def __str__(self) -> str:
        return self.value
