"""Quadratics, one for each sample: everything is known in closed form. The benchmark's own simulated problem."""

import numpy as np
import torch
from benchmark_utils.problem import as_problem, tensor, value_and_gradient
from benchopt import BaseDataset


class Dataset(BaseDataset):
    name = "quadratic"
    parameters = {"num_samples": [256], "dim": [20], "mu": [0.1], "random_state": [2442]}

    def get_data(self):
        rng = np.random.RandomState(self.random_state)
        count, dim = self.num_samples, self.dim

        def matrices(scale, low):
            basis = np.linalg.qr(rng.randn(dim, dim))[0]
            mean = (basis * np.geomspace(low, scale, dim)) @ basis.T
            noise = rng.randn(count, dim, dim) / dim
            return tensor(mean + 0.1 * (noise + noise.transpose(0, 2, 1)) / 2)

        both = {}
        for part in ("inner", "outer"):
            cross = 0.1 * rng.randn(1, dim, dim) / np.sqrt(dim) + 0.01 * rng.randn(count, dim, dim) / dim
            linear = rng.randn(1, dim) + 0.1 * rng.randn(count, dim)
            other = rng.randn(1, dim) + 0.1 * rng.randn(count, dim)
            both[part] = (
                matrices(1.0, self.mu), matrices(1.0, self.mu), tensor(cross), tensor(linear), tensor(other)
            )  # fmt: skip

        def f(part):
            def function(inner_var, outer_var, start=0, batch_size=1):
                h, g, c, a, b = (t[start : start + batch_size].mean(0) for t in both[part])
                z, x = inner_var, outer_var
                return z @ h @ z / 2 + x @ g @ x / 2 + x @ c @ z + a @ z + b @ x

            return function

        f_inner, f_outer = f("inner"), f("outer")

        def metrics(inner_var, outer_var):
            z, x = tensor(inner_var), tensor(outer_var)
            value, gradient, best = value_and_gradient(
                lambda z, x: f_inner(z, x, 0, count), lambda z, x: f_outer(z, x, 0, count), z, x
            )
            return {
                "value": float(gradient.norm()) ** 2,
                "value_func": value,
                "inner_distance": float((best - z).norm()) ** 2,
            }

        def init_var(rng):
            return rng.randn(dim), rng.rand(dim)

        torch.set_num_threads(1)
        return as_problem(f_inner, f_outer, count, count, dim, dim, metrics, init_var)
