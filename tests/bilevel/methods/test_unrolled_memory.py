"""Unrolling holds copies of the parameters, never graphs."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch

import bilevel

SCRIPT = """
import pathlib, torch, bilevel

resident = []

def inner(params, hyper, batch):
    hidden = torch.tanh(batch @ params["first"])
    return (hyper["scale"] * torch.tanh(hidden @ params["second"])).square().mean()

def outer(params, hyper, batch):  # here all steps are taken, none given back
    resident.append(int(pathlib.Path("/proc/self/statm").read_text().split()[1]) * 4096)
    return params["second"].square().sum()

problem, method = bilevel.Bilevel(inner, outer), bilevel.Unrolled(bilevel.SGD(lr=0.1, momentum=0.9))
hyper, batch = {"scale": torch.tensor(1.0)}, torch.randn(20_000, 8)
for kind in (torch.Tensor.detach, torch.nn.Parameter):
    params = {"first": kind(torch.randn(8, 16)), "second": kind(torch.randn(16, 16))}
    for num_steps in (2, 2, 12):
        assert bilevel.hypergradient(problem, params, hyper, [batch] * num_steps, None, method=method).status.ok
print(resident[2] - resident[1], resident[5] - resident[4])
"""
ACTIVATION = 4 * 20_000 * 16  # bytes of one hidden layer in float32: 1.3 MB beside parameters of 2 kB


@pytest.mark.skipif(not Path("/proc/self/statm").exists(), reason="reads resident memory from /proc")
def test_memory_does_not_grow_by_activations() -> None:
    # A process of its own, whose allocator gives every large block back at once: by default glibc keeps freed blocks
    # below the small ones that stay, which looks like growth.
    environment = {**os.environ, "MALLOC_MMAP_THRESHOLD_": str(2**20)}
    command = [sys.executable, "-W", "ignore", "-c", SCRIPT]
    done = subprocess.run(command, capture_output=True, text=True, check=True, env=environment)
    plain, parameters = map(int, done.stdout.split())
    # 10 graphs more would hold at least 20 activations.
    assert plain < 2 * ACTIVATION
    assert parameters < 2 * ACTIVATION


def test_modules_by_functional_call() -> None:
    torch.manual_seed(0)
    model = torch.nn.Sequential(
        torch.nn.Linear(4, 8), torch.nn.LayerNorm(8), torch.nn.GELU(), torch.nn.Linear(8, 3)
    ).double()
    x, y = torch.randn(6, 4, dtype=torch.float64), torch.randint(0, 3, (6,))

    def losses(params: dict[str, torch.Tensor]) -> torch.Tensor:
        out = torch.func.functional_call(model, params, (x,))
        return torch.nn.functional.cross_entropy(out, y, reduction="none")

    problem = bilevel.Bilevel(
        inner=lambda params, hyper, _: (hyper["weights"] * losses(params)).mean(),
        outer=lambda params, hyper, _: losses(params)[:2].mean(),
    )
    params = dict(model.named_parameters())
    hyper = {"weights": torch.ones(6, dtype=torch.float64)}
    arguments = (problem, params, hyper, [None], None)
    optimizer = bilevel.AdamW(lr=0.01)
    forward = bilevel.hypergradient(*arguments, method=bilevel.OneStep(optimizer)).grad
    reverse = bilevel.hypergradient(*arguments, method=bilevel.OneStep(optimizer, product="vjp")).grad
    expected = bilevel.testing.through_the_loop(*arguments, optimizer=optimizer)
    assert bilevel.testing.relative_error(forward, expected) < 1e-10
    assert bilevel.testing.relative_error(reverse, expected) < 1e-10
