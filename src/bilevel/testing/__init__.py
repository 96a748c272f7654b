"""Problems with known answers, to check a method with.

    known = bilevel.testing.ridge()
    result = bilevel.hypergradient(known.problem, known.params, known.hyper, [known.inner_batch] * 5,
                                   known.outer_batch, method=bilevel.Unrolled(known.optimizer))
    assert bilevel.testing.relative_error(result.grad, known.unrolled_grad(5)) < 1e-8

`PROBLEMS` holds them all by name.
"""

from ._quadratic import quadratic as quadratic
from ._reweighted import reweighted as reweighted
from ._ridge import ridge as ridge
from ._step_size import step_size as step_size
from ._toy import toy as toy
from .known import KnownProblem as KnownProblem
from .measures import cosine as cosine
from .measures import relative_error as relative_error
from .measures import through_the_loop as through_the_loop
from .problems import PROBLEMS as PROBLEMS
