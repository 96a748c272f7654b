"""SABA, from its paper: SOBA with SAGA's variance reduction of every direction."""

import torch
from benchmark_utils.torch_solver import TorchSolver


class Solver(TorchSolver):
    """M. Dagréou, P. Ablin, S. Vaiter, T. Moreau, NeurIPS 2022, section 3.2: the last value of each batch's directions
    is kept, and the estimate is the new one minus the kept one plus the mean of all kept."""

    name = "SABA"
    parameters = {"step_size": [0.1], "outer_ratio": [1.0], "batch_size": [64], **TorchSolver.parameters}

    def start(self):
        self.v = torch.zeros_like(self.z)
        self.kept, self.mean = {}, {}
        for which in ("inner", "outer"):
            starts = range(0, self.num[which] - self.size[which] + 1, self.size[which])
            for start in starts:
                self.kept[which, start] = self.directions(which, start)
            parts = zip(*(self.kept[which, start] for start in starts), strict=True)
            self.mean[which] = [torch.stack(part).mean(0) for part in parts]
        self.count_of = {
            which: len(range(0, self.num[which] - self.size[which] + 1, self.size[which])) for which in self.num
        }

    def directions(self, which, start):
        if which == "inner":
            return self.second(self.z, self.x, self.v, start)
        return self.grad_outer(self.z, self.x, start)

    def reduced(self, which):
        start = self.batch(which)
        new, old, mean = self.directions(which, start), self.kept[which, start], self.mean[which]
        estimate = [n - o + m for n, o, m in zip(new, old, mean, strict=True)]
        self.mean[which] = [m + (n - o) / self.count_of[which] for n, o, m in zip(new, old, mean, strict=True)]
        self.kept[which, start] = new
        return estimate

    def step(self):
        gradient, hessian, cross = self.reduced("inner")
        by_z, by_x = self.reduced("outer")
        self.z = self.z - self.step_size * gradient
        self.v = self.v - self.step_size * (hessian - by_z)
        self.x = self.x - self.step_size / self.outer_ratio * (by_x - cross)
