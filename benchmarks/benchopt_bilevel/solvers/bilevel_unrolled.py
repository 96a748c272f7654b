"""bilevel's unrolled differentiation: exact through n_inner_steps of SGD, which go on from where they were."""

from benchmark_utils.torch_solver import TorchSolver

import bilevel


class Solver(TorchSolver):
    """bilevel.Unrolled(SGD): reverse mode through the steps, one batch each, the inner variable kept."""

    name = "bilevel-unrolled"
    requirements = ["pytorch", "pip:dreamprm"]
    parameters = {
        "step_size": [0.1], "outer_ratio": [1.0], "batch_size": [64], "n_inner_steps": [10], "eval_freq": [4],
        "random_state": [1],
    }  # fmt: skip

    def start(self):
        self.problem = bilevel.Bilevel(
            lambda params, hyper, start: self.inner(params, hyper, start),
            lambda params, hyper, start: self.outer(params, hyper, start),
        )
        self.method = bilevel.Unrolled(bilevel.SGD(lr=self.step_size))

    def step(self):
        batches = [self.batch("inner") for _ in range(self.n_inner_steps)]
        result = bilevel.hypergradient(self.problem, self.z, self.x, batches, self.batch("outer"), method=self.method)
        self.passes += result.stats["passes"] + self.n_inner_steps  # a product with second derivatives counts twice
        self.z, self.x = result.params, self.x - self.step_size / self.outer_ratio * result.grad
