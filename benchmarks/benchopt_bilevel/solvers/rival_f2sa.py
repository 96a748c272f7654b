"""F2SA, from its paper: first order only, with a second copy of the inner variable and a growing multiplier."""

import torch
from benchmark_utils.torch_solver import TorchSolver


class Solver(TorchSolver):
    """J. Kwon, D. Kwon, S. Wright, R. Nowak, "A Fully First-Order Method for Stochastic Bilevel Optimization",
    ICML 2023, algorithm 1."""

    name = "F2SA"
    parameters = {
        "step_size": [0.05], "outer_ratio": [1.0], "batch_size": [64], "n_inner_steps": [10], "multiplier": [1.0],
        "growth": [0.1], "eval_freq": [4], "random_state": [1],
    }  # fmt: skip

    def start(self):
        self.star = self.z.clone()
        self.weight = self.multiplier

    def by_outer(self, z):
        self.passes += 1
        return torch.func.grad(self.inner, 1)(z, self.x, self.batch("inner"))

    def step(self):
        k = 1 + self.count
        for _ in range(self.n_inner_steps):
            both = self.weight * self.grad_inner(self.star, self.x, self.batch("inner"))
            both = both + self.grad_outer(self.star, self.x, self.batch("outer"))[0]
            self.star = self.star - self.step_size / self.weight / k ** (4 / 7 - 1 / 7) * both
            self.z = self.z - self.step_size / k ** (4 / 7) * self.grad_inner(self.z, self.x, self.batch("inner"))
        by_x = self.grad_outer(self.star, self.x, self.batch("outer"))[1]
        by_x = by_x + self.weight * (self.by_outer(self.star) - self.by_outer(self.z))
        self.x = self.x - self.step_size / self.outer_ratio / k ** (4 / 7) * by_x
        self.weight += self.growth / k ** (1 / 7)
