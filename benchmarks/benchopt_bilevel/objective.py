"""benchopt's bilevel benchmark, in torch: the same interface as github.com/benchopt/benchmark_bilevel.

min_x h(x) = f_outer(z*(x), x)   where   z*(x) = argmin_z f_inner(z, x)

A data set gives both functions of (inner_var, outer_var, start, batch_size), their full-batch versions, and metrics.
"""

import numpy as np
from benchopt import BaseObjective


class Objective(BaseObjective):
    name = "Bilevel Optimization"
    url = "https://github.com/benchopt/benchmark_bilevel"
    requirements = ["pytorch", "scikit-learn"]
    min_benchopt_version = "1.6"
    parameters = {"random_state": [2442]}

    def set_data(self, pb_inner, pb_outer, metrics, init_var):
        self.f_inner, self.n_samples_inner, self.dim_inner, self.f_inner_fb = pb_inner
        self.f_outer, self.n_samples_outer, self.dim_outer, self.f_outer_fb = pb_outer
        self.metrics = metrics
        self.inner_var0, self.outer_var0 = init_var(np.random.RandomState(self.random_state))

    def get_one_result(self):
        return {"inner_var": self.inner_var0, "outer_var": self.outer_var0, "passes": 0}

    def evaluate_result(self, inner_var, outer_var, passes):
        if not (np.isfinite(outer_var).all() and np.isfinite(inner_var).all()):
            return {"value": float("inf"), "passes": passes}
        return {**self.metrics(inner_var, outer_var), "passes": passes}

    def get_objective(self):
        return {
            "f_inner": self.f_inner,
            "f_outer": self.f_outer,
            "n_inner_samples": self.n_samples_inner,
            "n_outer_samples": self.n_samples_outer,
            "inner_var0": self.inner_var0,
            "outer_var0": self.outer_var0,
            "f_inner_fb": self.f_inner_fb,
            "f_outer_fb": self.f_outer_fb,
        }
