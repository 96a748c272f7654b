"""stocBiO, from its paper: inner SGD, then a truncated Neumann series for the inverse Hessian."""

from benchmark_utils.torch_solver import TorchSolver


class Solver(TorchSolver):
    """K. Ji, J. Yang, Y. Liang, "Bilevel Optimization: Convergence Analysis and Enhanced Design", ICML 2021,
    algorithm 2."""

    name = "stocBiO"
    parameters = {
        "step_size": [0.1], "outer_ratio": [1.0], "batch_size": [64], "n_inner_steps": [10], "n_neumann": [10],
        "eval_freq": [4], "random_state": [1],
    }  # fmt: skip

    def start(self):
        """Nothing besides z and x."""

    def step(self):
        for _ in range(self.n_inner_steps):
            self.z = self.z - self.step_size * self.grad_inner(self.z, self.x, self.batch("inner"))
        by_z, by_x = self.grad_outer(self.z, self.x, self.batch("outer"))
        term, total = by_z, by_z
        for _ in range(self.n_neumann):
            term = term - self.step_size * self.second(self.z, self.x, term, self.batch("inner"))[1]
            total = total + term
        cross = self.second(self.z, self.x, self.step_size * total, self.batch("inner"))[2]
        self.x = self.x - self.step_size / self.outer_ratio * (by_x - cross)
