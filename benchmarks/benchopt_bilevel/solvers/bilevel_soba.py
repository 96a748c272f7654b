"""bilevel's own SOBA, state carried from call to call."""

from benchmark_utils.torch_solver import TorchSolver

import bilevel


class Solver(TorchSolver):
    """bilevel.SOBA(SGD): the single loop of Dagréou et al., with the gradient taken after the moves."""

    name = "bilevel-soba"
    requirements = ["pytorch", "pip:dreamprm"]
    parameters = {
        "step_size": [0.1], "outer_ratio": [1.0], "batch_size": [64], "n_inner_steps": [1], **TorchSolver.parameters
    }  # fmt: skip

    def start(self):
        self.problem = bilevel.Bilevel(
            lambda params, hyper, start: self.inner(params, hyper, start),
            lambda params, hyper, start: self.outer(params, hyper, start),
        )
        self.method = bilevel.SOBA(bilevel.SGD(lr=self.step_size), step=self.step_size)
        self.state = None

    def step(self):
        batches = [self.batch("inner") for _ in range(self.n_inner_steps)]
        result = bilevel.hypergradient(
            self.problem, self.z, self.x, batches, self.batch("outer"), method=self.method, state=self.state
        )
        self.passes += result.stats["passes"] + self.n_inner_steps + 1
        self.z, self.state = result.params, result.state
        self.x = self.x - self.step_size / self.outer_ratio * result.grad
