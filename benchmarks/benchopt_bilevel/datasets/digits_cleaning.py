"""Data cleaning: one weight for each of 800 training images, half of which carry a random label.

f_inner = mean σ(x_i) CE(z; d_i) + reg ‖z‖²;  f_outer = mean CE on 400 clean images. The benchmark's mnist problem, on
the 8 by 8 digits that scikit-learn carries. `value` is the error on 597 test images of a model trained to the end
under the weights; `separates` the area under the ROC curve of the weights against the labels that are right.
"""

import numpy as np
import torch
from benchmark_utils.problem import as_problem, tensor
from benchopt import BaseDataset
from sklearn.datasets import load_digits
from sklearn.metrics import roc_auc_score
from torch.nn.functional import cross_entropy

NUM_TRAIN, NUM_OUTER, NUM_CLASSES, REG = 800, 400, 10, 2e-2


class Dataset(BaseDataset):
    name = "digits_cleaning"
    requirements = ["scikit-learn"]
    parameters = {"ratio": [0.5], "random_state": [32]}

    def get_data(self):
        rng = np.random.RandomState(self.random_state)
        data, labels = load_digits(return_X_y=True)
        order = rng.permutation(len(labels))
        data, labels = tensor(data[order] / 16), torch.from_numpy(labels[order])
        cuts = [NUM_TRAIN, NUM_OUTER, len(labels) - NUM_TRAIN - NUM_OUTER]
        (rows, rows_outer, rows_test), (true, labels_outer, labels_test) = data.split(cuts), labels.split(cuts)
        wrong = torch.from_numpy(rng.rand(NUM_TRAIN) < self.ratio)
        given = torch.where(wrong, torch.from_numpy(rng.randint(0, NUM_CLASSES, NUM_TRAIN)), true)
        dim = data.shape[1] * NUM_CLASSES

        def logits(z, rows):
            return rows @ z.reshape(-1, NUM_CLASSES)

        def f_inner(inner_var, outer_var, start=0, batch_size=1):
            part = slice(start, start + batch_size)
            losses = cross_entropy(logits(inner_var, rows[part]), given[part], reduction="none")
            return (outer_var[part].sigmoid() * losses).mean() + REG * (inner_var**2).sum()

        def f_outer(inner_var, outer_var, start=0, batch_size=1):
            part = slice(start, start + batch_size)
            return cross_entropy(logits(inner_var, rows_outer[part]), labels_outer[part])

        def metrics(inner_var, outer_var):
            x = tensor(outer_var)
            z = tensor(inner_var).requires_grad_()
            lbfgs = torch.optim.LBFGS([z], max_iter=100, tolerance_grad=1e-9, line_search_fn="strong_wolfe")

            def closure():
                lbfgs.zero_grad()
                loss = f_inner(z, x, 0, NUM_TRAIN)
                loss.backward()
                return loss

            lbfgs.step(closure)
            with torch.no_grad():
                wrongly = (logits(z, rows_test).argmax(1) != labels_test).double().mean()
                value = f_outer(z, x, 0, NUM_OUTER)
            area = roc_auc_score((given == true).numpy(), outer_var) if np.ptp(outer_var) else 0.5
            return {"value": float(wrongly), "value_func": float(value), "separates": float(area)}

        def init_var(rng):
            return np.zeros(dim), np.zeros(NUM_TRAIN)

        torch.set_num_threads(1)
        return as_problem(f_inner, f_outer, NUM_TRAIN, NUM_OUTER, dim, NUM_TRAIN, metrics, init_var)
