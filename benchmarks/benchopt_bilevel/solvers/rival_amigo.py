"""AmIGO, from its paper: inner SGD and SGD on the linear system, both warm."""

import torch
from benchmark_utils.torch_solver import TorchSolver


class Solver(TorchSolver):
    """M. Arbel, J. Mairal, "Amortized Implicit Differentiation for Stochastic Bilevel Optimization", ICLR 2022,
    algorithms 1 and 2."""

    name = "AmIGO"
    parameters = {
        "step_size": [0.1], "outer_ratio": [1.0], "batch_size": [64], "n_inner_steps": [10], "eval_freq": [4],
        "random_state": [1],
    }  # fmt: skip

    def start(self):
        self.v = torch.zeros_like(self.z)

    def step(self):
        for _ in range(self.n_inner_steps):
            self.z = self.z - self.step_size * self.grad_inner(self.z, self.x, self.batch("inner"))
        by_z, by_x = self.grad_outer(self.z, self.x, self.batch("outer"))
        for _ in range(self.n_inner_steps):
            hessian = self.second(self.z, self.x, self.v, self.batch("inner"))[1]
            self.v = self.v - self.step_size * (hessian - by_z)
        cross = self.second(self.z, self.x, self.v, self.batch("inner"))[2]
        self.x = self.x - self.step_size / self.outer_ratio * (by_x - cross)
