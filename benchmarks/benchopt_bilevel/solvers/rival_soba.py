"""SOBA, from its paper: three directions on one batch each, all variables move together."""

import torch
from benchmark_utils.torch_solver import TorchSolver


class Solver(TorchSolver):
    """M. Dagréou, P. Ablin, S. Vaiter, T. Moreau, "A framework for bilevel optimization that enables stochastic and
    global variance reduction algorithms", NeurIPS 2022, algorithm 1 with the directions of SOBA."""

    name = "SOBA"
    parameters = {
        "step_size": [0.1], "outer_ratio": [1.0], "batch_size": [64], "decay": [0.5], **TorchSolver.parameters
    }  # fmt: skip

    def start(self):
        self.v = torch.zeros_like(self.z)

    def step(self):
        rate = self.step_size / (1 + self.count) ** self.decay
        gradient, hessian, cross = self.second(self.z, self.x, self.v, self.batch("inner"))
        by_z, by_x = self.grad_outer(self.z, self.x, self.batch("outer"))
        self.z = self.z - rate * gradient
        self.v = self.v - rate * (hessian - by_z)
        self.x = self.x - rate / self.outer_ratio * (by_x - cross)
