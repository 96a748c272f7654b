"""What the data sets share: functions of a batch, and the exact value function to judge by."""

from functools import partial

import numpy as np
import torch


def as_problem(f_inner, f_outer, num_inner, num_outer, dim_inner, dim_outer, metrics, init_var):
    """The dictionary that the objective takes."""
    return {
        "pb_inner": (f_inner, num_inner, dim_inner, partial(f_inner, start=0, batch_size=num_inner)),
        "pb_outer": (f_outer, num_outer, dim_outer, partial(f_outer, start=0, batch_size=num_outer)),
        "metrics": metrics,
        "init_var": init_var,
    }


def minimiser(f, start, outer_var):
    """argmin_z f(z, x), by Newton's method with a line search: exact for these small, strongly convex problems."""
    z = start.clone()
    for _ in range(60):
        gradient = torch.func.grad(f)(z, outer_var)
        if float(gradient.norm()) < 1e-11:
            break
        step = torch.linalg.solve(torch.func.hessian(f)(z, outer_var), gradient)
        size, value = 1.0, f(z, outer_var)
        while float(f(z - size * step, outer_var)) > float(value) and size > 1e-8:
            size /= 2
        z = z - size * step
    return z


def value_and_gradient(f_inner, f_outer, start, outer_var):
    """h(x) and ∇h(x), by the implicit function theorem at the minimiser, with the whole Hessian."""
    z = minimiser(f_inner, start, outer_var)
    by_z, by_x = torch.func.grad(f_outer, (0, 1))(z, outer_var)
    v = torch.linalg.solve(torch.func.hessian(f_inner)(z, outer_var), by_z)
    _, pull = torch.func.vjp(lambda x: torch.func.grad(f_inner)(z, x), outer_var)
    return float(f_outer(z, outer_var)), by_x - pull(v)[0], z


def tensor(array):
    return torch.from_numpy(np.array(array, dtype=np.float64))
