"""bilevel's implicit differentiation: warm inner steps, conjugate gradients on a batch."""

import torch
from benchmark_utils.torch_solver import TorchSolver

import bilevel


class Solver(TorchSolver):
    """bilevel.Implicit(CG): n_inner_steps of SGD on batches, then (H + damping) v = ∇f_outer by at most n_cg products.

    F. Pedregosa, "Hyperparameter optimization with approximate gradient", ICML 2016, with warm starts."""

    name = "bilevel-implicit"
    requirements = ["pytorch", "pip:dreamprm"]
    parameters = {
        "step_size": [0.1], "outer_ratio": [1.0], "batch_size": [64], "n_inner_steps": [10], "n_cg": [10],
        "damping": [0.0], "eval_freq": [4], "random_state": [1],
    }  # fmt: skip

    def start(self):
        self.problem = bilevel.Bilevel(
            lambda params, hyper, start: self.inner(params, hyper, start),
            lambda params, hyper, start: self.outer(params, hyper, start),
        )
        # Where a batch's Hessian is not positive, CG gives the iterate before: still a direction of descent.
        self.method = bilevel.Implicit(bilevel.CG(max_iterations=self.n_cg, tolerance=1e-8, damping=self.damping))

    def step(self):
        for _ in range(self.n_inner_steps):
            self.z = self.z - self.step_size * self.grad_inner(self.z, self.x, self.batch("inner"))
        batch = self.batch("inner"), self.batch("outer")
        result = bilevel.hypergradient(self.problem, self.z, self.x, [batch[0]], batch[1], method=self.method)
        self.passes += 2 * result.stats["passes"]
        gradient = result.grad
        if isinstance(gradient, torch.Tensor) and bool(torch.isfinite(gradient).all()):
            self.x = self.x - self.step_size / self.outer_ratio * gradient
