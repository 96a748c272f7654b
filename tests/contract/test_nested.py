"""Nested dictionaries, lists and tuples give what flat dictionaries give, by every method."""

from typing import Any, NamedTuple

import pytest
import torch
from torch import Tensor

import bilevel


class Pair(NamedTuple):
    scale: Any
    shift: Any


def draw(*shape: int, seed: int) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


BATCH = (draw(8, 3, seed=1), draw(8, seed=2), draw(8, 3, seed=3), draw(8, seed=4))
LR = torch.tensor(0.05, dtype=torch.float64)
NESTED_PARAMS = {"layers": [{"w": draw(3, 4, seed=5)}, {"w": draw(4, seed=6)}], "out": Pair(draw(seed=7), draw(seed=8))}
NESTED_HYPER = {"optimizer": {"lr": LR, "decay": (LR, 2 * LR)}, "weights": [draw(8, seed=9).exp()]}
FLAT_PARAMS = {
    "layers.0.w": NESTED_PARAMS["layers"][0]["w"],
    "layers.1.w": NESTED_PARAMS["layers"][1]["w"],
    "out.0": NESTED_PARAMS["out"].scale,
    "out.1": NESTED_PARAMS["out"].shift,
}
FLAT_HYPER = {
    "optimizer.lr": LR,
    "optimizer.decay.0": LR,
    "optimizer.decay.1": 2 * LR,
    "weights.0": NESTED_HYPER["weights"][0],
}


def forward(w1: Tensor, w2: Tensor, scale: Tensor, shift: Tensor, x: Tensor) -> Tensor:
    return scale * (torch.tanh(x @ w1) @ w2) + shift


def nested_out(params: Any, x: Tensor) -> Tensor:
    first, second = params["layers"]
    return forward(first["w"], second["w"], params["out"].scale, params["out"].shift, x)


def nested_inner(params: Any, hyper: Any, batch: Any) -> Tensor:
    ridge = sum((layer["w"] ** 2).sum() for layer in params["layers"])
    weights, (first, _) = hyper["weights"][0], hyper["optimizer"]["decay"]
    return (weights * (nested_out(params, batch[0]) - batch[1]) ** 2).mean() + first * ridge


def nested_outer(params: Any, hyper: Any, batch: Any) -> Tensor:
    return ((nested_out(params, batch[2]) - batch[3]) ** 2).mean()


def flat_inner(params: Any, hyper: Any, batch: Any) -> Tensor:
    ridge = (params["layers.0.w"] ** 2).sum() + (params["layers.1.w"] ** 2).sum()
    error = forward(*params.values(), batch[0]) - batch[1]
    return (hyper["weights.0"] * error**2).mean() + hyper["optimizer.decay.0"] * ridge


def flat_outer(params: Any, hyper: Any, batch: Any) -> Tensor:
    return ((forward(*params.values(), batch[2]) - batch[3]) ** 2).mean()


def learned(nested: bool) -> bilevel.SGD:
    if nested:
        return bilevel.SGD(lr=lambda hyper: hyper["optimizer"]["lr"], momentum=0.9)
    return bilevel.SGD(lr=lambda hyper: hyper["optimizer.lr"], momentum=0.9)


PLAIN = bilevel.SGD(lr=0.05)
METHODS = {
    "one_step": lambda nested: bilevel.OneStep(learned(nested), clip_norm=0.5),
    "unrolled": lambda nested: bilevel.Unrolled(learned(nested)),
    "forward_mode": lambda nested: bilevel.ForwardMode(learned(nested), chunk_size=3),
    "implicit": lambda _: bilevel.Implicit(bilevel.Direct(damping=1.0)),
    "finite_difference": lambda nested: bilevel.FiniteDifference(learned(nested)),
    "sama": lambda nested: bilevel.SAMA(learned(nested)),
    "soba": lambda _: bilevel.SOBA(PLAIN),
    "f2sa": lambda _: bilevel.ValueFunctionPenalty(PLAIN),
    "bome": lambda _: bilevel.ValueFunctionPenalty(PLAIN, variant="bome"),
}


@pytest.mark.parametrize("name", METHODS)
def test_nested_is_flat(name: str) -> None:
    batches = [BATCH] * (1 if name in ("one_step", "finite_difference") else 3)
    found = bilevel.hypergradient(
        bilevel.Bilevel(nested_inner, nested_outer),
        NESTED_PARAMS,
        NESTED_HYPER,
        batches,
        BATCH,
        method=METHODS[name](True),
    )
    expected = bilevel.hypergradient(
        bilevel.Bilevel(flat_inner, flat_outer), FLAT_PARAMS, FLAT_HYPER, batches, BATCH, method=METHODS[name](False)
    )
    assert found.status is expected.status
    assert isinstance(found.params["out"], Pair)
    pairs = [
        (found.grad["optimizer"]["lr"], expected.grad["optimizer.lr"]),
        (found.grad["optimizer"]["decay"][0], expected.grad["optimizer.decay.0"]),
        (found.grad["optimizer"]["decay"][1], expected.grad["optimizer.decay.1"]),
        (found.grad["weights"][0], expected.grad["weights.0"]),
        (found.params["layers"][0]["w"], expected.params["layers.0.w"]),
        (found.params["out"].shift, expected.params["out.1"]),
    ]
    for ours, theirs in pairs:
        torch.testing.assert_close(ours, theirs, rtol=1e-12, atol=1e-14)
    assert found.grad["weights"][0].abs().max() > 1e-4
    again = bilevel.hypergradient(  # and goes on from there
        bilevel.Bilevel(nested_inner, nested_outer),
        found.params,
        NESTED_HYPER,
        batches,
        BATCH,
        method=METHODS[name](True),
        state=found.state,
    )
    assert again.outer_loss != found.outer_loss or name == "implicit"


def test_nested_starts_roots_and_refusals() -> None:
    problem = bilevel.Bilevel(nested_inner, nested_outer, start=lambda hyper: hyper["start"])
    hyper = {**NESTED_HYPER, "start": NESTED_PARAMS}
    result = bilevel.hypergradient(problem, None, hyper, [BATCH] * 2, BATCH, method=bilevel.Unrolled(PLAIN))
    flat = bilevel.Bilevel(
        flat_inner, flat_outer, start=lambda hyper: {name: hyper[f"start.{name}"] for name in FLAT_PARAMS}
    )
    flat_hyper = {**FLAT_HYPER, **{f"start.{name}": tensor for name, tensor in FLAT_PARAMS.items()}}
    expected = bilevel.hypergradient(flat, None, flat_hyper, [BATCH] * 2, BATCH, method=bilevel.Unrolled(PLAIN))
    torch.testing.assert_close(result.grad["start"]["layers"][0]["w"], expected.grad["start.layers.0.w"])
    root = bilevel.FixedPoint(
        lambda params, hyper, batch: {"z": [0.5 * torch.cos(params["z"][0]) + hyper["x"]["a"]]},
        lambda params, hyper, batch: params["z"][0],
    )
    z, x = torch.tensor(0.4, dtype=torch.float64), torch.tensor(0.1, dtype=torch.float64)
    for _ in range(100):
        z = 0.5 * torch.cos(z) + x
    method = bilevel.Implicit(bilevel.GMRES())
    found = bilevel.hypergradient(root, {"z": [z]}, {"x": {"a": x}}, [None], None, method=method)
    # dz/dx = 1 / (1 + ½ sin z)
    assert float(found.grad["x"]["a"]) == pytest.approx(float(1 / (1 + 0.5 * torch.sin(z))), rel=1e-10)
    plain = bilevel.Bilevel(nested_inner, nested_outer)
    with pytest.raises(ValueError, match=r"would be called 'a\.b'"):
        bilevel.hypergradient(plain, {"a.b": x, "a": {"b": x}}, hyper, [BATCH], BATCH, method=bilevel.OneStep(PLAIN))
    with pytest.raises(ValueError, match=r"params\['a\.b'\] is int"):
        bilevel.hypergradient(plain, {"a": {"b": 1}}, hyper, [BATCH], BATCH, method=bilevel.OneStep(PLAIN))
