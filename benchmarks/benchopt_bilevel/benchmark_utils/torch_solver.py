"""The loop that every solver here shares: `start` once, `step` eval_freq times between two looks of benchopt."""

import numpy as np
import torch
from benchopt import BaseSolver
from benchopt.stopping_criterion import SufficientProgressCriterion


class TorchSolver(BaseSolver):
    """A solver says how it starts and steps on `self.z` (inner_var), `self.x` (outer_var) and what else it keeps.

    `self.passes` counts passes over one batch, forward and backward: a gradient is one, a product with second
    derivatives two (as reverse over reverse). It is what a solver costs on a machine that does nothing else.
    """

    stopping_criterion = SufficientProgressCriterion(patience=1000, strategy="callback")
    requirements = ["pytorch"]
    parameters = {"eval_freq": [32], "random_state": [1]}

    def get_next(self, stop_val):
        return stop_val + 1

    def set_objective(
        self, f_inner, f_outer, n_inner_samples, n_outer_samples, inner_var0, outer_var0, f_inner_fb, f_outer_fb
    ):
        self.f_inner, self.f_outer = f_inner, f_outer
        self.f_inner_fb, self.f_outer_fb = f_inner_fb, f_outer_fb
        self.num = {"inner": n_inner_samples, "outer": n_outer_samples}
        self.size = {
            key: num if self.batch_size == "full" else min(self.batch_size, num) for key, num in self.num.items()
        }
        self.z0, self.x0 = torch.from_numpy(inner_var0.copy()), torch.from_numpy(outer_var0.copy())

    def skip(self, f_inner, inner_var0, outer_var0, **rest):
        try:
            f_inner(torch.from_numpy(inner_var0.copy()), torch.from_numpy(outer_var0.copy()), start=0, batch_size=2)
        except (TypeError, AttributeError) as error:
            return True, f"the data set's functions are not torch's: {error}"
        return False, None

    def run(self, callback):
        torch.set_num_threads(1)
        self.rng = np.random.RandomState(self.random_state)
        self.z, self.x, self.passes, self.count = self.z0.clone(), self.x0.clone(), 0, 0
        self.orders = {"inner": [], "outer": []}
        self.start()
        while callback():
            for _ in range(self.eval_freq):
                self.step()
                self.count += 1

    def get_result(self):
        return {
            "inner_var": self.z.detach().numpy().copy(),
            "outer_var": self.x.detach().numpy().copy(),
            "passes": self.passes,
        }

    # -- what solvers use ----------------------------------------------------------------------------------------

    def batch(self, which):
        """The next batch of an epoch in random order: where it starts."""
        if not self.orders[which]:
            starts = np.arange(0, self.num[which] - self.size[which] + 1, self.size[which])
            self.orders[which] = list(self.rng.permutation(starts))
        return int(self.orders[which].pop())

    def inner(self, z, x, start):
        return self.f_inner(z, x, start=start, batch_size=self.size["inner"])

    def outer(self, z, x, start):
        return self.f_outer(z, x, start=start, batch_size=self.size["outer"])

    def grad_inner(self, z, x, start):
        self.passes += 1
        return torch.func.grad(self.inner)(z, x, start)

    def grad_outer(self, z, x, start):
        self.passes += 1
        return torch.func.grad(self.outer, (0, 1))(z, x, start)

    def second(self, z, x, v, start):
        """∇_z f, ∂²f/∂z² v and ∂/∂x <∇_z f, v> on one batch."""
        self.passes += 3
        gradient, pull = torch.func.vjp(lambda z, x: torch.func.grad(self.inner)(z, x, start), z, x)
        return (gradient, *pull(v))
