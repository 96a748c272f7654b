"""One ridge penalty for each of 30 features of a logistic regression, chosen on validation data.

f_inner = mean log(1 + exp(-y <z, d>)) + ½ Σ_j exp(x_j) z_j²;  f_outer = the same mean on the validation half. The
benchmark's ijcnn1 problem, on data that scikit-learn carries.
"""

import numpy as np
import torch
from benchmark_utils.problem import as_problem, tensor, value_and_gradient
from benchopt import BaseDataset
from sklearn.datasets import load_breast_cancer
from sklearn.preprocessing import StandardScaler
from torch.nn.functional import softplus


class Dataset(BaseDataset):
    name = "breast_cancer"
    requirements = ["scikit-learn"]
    parameters = {"random_state": [0]}

    def get_data(self):
        data, labels = load_breast_cancer(return_X_y=True)
        order = np.random.RandomState(self.random_state).permutation(len(labels))
        data, signs = tensor(StandardScaler().fit_transform(data[order])), tensor(2.0 * labels[order] - 1)
        half, dim = len(labels) // 2, data.shape[1]
        parts = {"inner": (data[:half], signs[:half]), "outer": (data[half:], signs[half:])}

        def loss(z, part, start, batch_size):
            rows, signs = (t[start : start + batch_size] for t in parts[part])
            return softplus(-signs * (rows @ z)).mean()

        def f_inner(inner_var, outer_var, start=0, batch_size=1):
            return loss(inner_var, "inner", start, batch_size) + (outer_var.exp() * inner_var**2).sum() / 2

        def f_outer(inner_var, outer_var, start=0, batch_size=1):
            return loss(inner_var, "outer", start, batch_size)

        num = {part: len(values[1]) for part, values in parts.items()}

        def metrics(inner_var, outer_var):
            z, x = tensor(inner_var), tensor(outer_var)
            value, gradient, best = value_and_gradient(
                lambda z, x: f_inner(z, x, 0, num["inner"]), lambda z, x: f_outer(z, x, 0, num["outer"]), z, x
            )
            return {
                "value": float(gradient.norm()) ** 2,
                "value_func": value,
                "inner_distance": float((best - z).norm()) ** 2,
            }

        def init_var(rng):
            return rng.randn(dim), np.log(rng.rand(dim))

        torch.set_num_threads(1)
        return as_problem(f_inner, f_outer, num["inner"], num["outer"], dim, dim, metrics, init_var)
