"""Every method on every problem to which it applies, in float64 and float32.

A new method is one file under bilevel/methods and one line in METHODS.
"""

from collections.abc import Callable
from dataclasses import dataclass

import pytest
import torch

import bilevel
from bilevel import _tree as tree
from bilevel.testing import PROBLEMS, KnownProblem, relative_error

NUM_STEPS = 5
# Rounding over a handful of steps: 1e-8 is the promise in float64 (measured 1e-13), 1e-3 leaves float32 its 1e-7
# times the condition of the problems (about 30) and the cancellation between the terms of the answers.
EXACT = {torch.float64: 1e-8, torch.float32: 1e-3}


@dataclass(frozen=True)
class Entry:
    """A method as the contract runs it."""

    build: Callable[[KnownProblem], bilevel.Method]
    answer: str
    """"unrolled": the K-step answer; "implicit": the answer along the minimiser; "descent": that it goes to 0."""
    tolerance: dict[torch.dtype, float]
    """Relative error allowed."""
    num_steps: int = NUM_STEPS
    calls: int = 1
    """Calls with hyper held, each going on from the last; single-loop methods need many."""
    from_solution: bool = False
    """Start at the minimiser, as implicit differentiation demands."""
    skip: frozenset[str] = frozenset()
    """Problems that the method is not made for, with the reason beside the entry."""


def implicit(build: Callable[[KnownProblem], bilevel.Solver], tolerance: dict[torch.dtype, float] = EXACT) -> Entry:
    return Entry(lambda known: bilevel.Implicit(build(known)), "implicit", tolerance, num_steps=2, from_solution=True)


def rate(known: KnownProblem) -> float:
    assert known.curvature is not None
    return 1.0 / known.curvature[1]


def scaled(known: KnownProblem, share: float) -> bilevel.SGD:
    return bilevel.SGD(lr=share * rate(known))


# A central difference of width .01 has an error of its square (1e-4) times third derivatives, and in float32 one of
# rounding over the width (1e-5); with respect to θ the mixed derivatives here are quadratic at most, so it is exact.
DIFFERENCE = {torch.float64: 1e-8, torch.float32: 5e-3}

METHODS = {
    "one_step_jvp": Entry(lambda known: bilevel.OneStep(known.optimizer), "unrolled", EXACT, num_steps=1),
    "one_step_vjp": Entry(lambda k: bilevel.OneStep(k.optimizer, product="vjp"), "unrolled", EXACT, num_steps=1),
    "unrolled_jvp": Entry(lambda known: bilevel.Unrolled(known.optimizer), "unrolled", EXACT),
    "unrolled_vjp": Entry(lambda known: bilevel.Unrolled(known.optimizer, product="vjp"), "unrolled", EXACT),
    "unrolled_checkpoints": Entry(lambda k: bilevel.Unrolled(k.optimizer, checkpoint_every=2), "unrolled", EXACT),
    "forward_mode": Entry(lambda known: bilevel.ForwardMode(known.optimizer), "unrolled", EXACT),
    "finite_difference": Entry(lambda k: bilevel.FiniteDifference(k.optimizer), "unrolled", DIFFERENCE, num_steps=1),
    "implicit_cg": implicit(lambda _: bilevel.CG(max_iterations=20, tolerance=1e-10)),
    "implicit_neumann": implicit(lambda known: bilevel.Neumann(terms=100, scale=rate(known), tolerance=1e-9)),
    # At full rank only the damping keeps it from the direct solve.
    "implicit_nystrom": implicit(lambda _: bilevel.Nystrom(rank=99, damping=1e-10)),
    "implicit_direct": implicit(lambda _: bilevel.Direct()),
    "implicit_gmres": implicit(lambda _: bilevel.GMRES(tolerance=1e-10)),
    "implicit_bicgstab": implicit(lambda _: bilevel.BiCGSTAB(tolerance=1e-10)),
    "implicit_normal_cg": implicit(lambda _: bilevel.NormalCG(tolerance=1e-10)),
    # The one-step answer taken at the end of the step: exact where the mixed derivative does not depend on θ.
    "sama": Entry(
        lambda known: bilevel.SAMA(known.optimizer),
        "unrolled",
        DIFFERENCE,
        num_steps=1,
        skip=frozenset({"ridge", "reweighted"}),
    ),
    # Both converge linearly in the number of steps; 40 of them at a condition of 4 leave (3/4)^40 = 1e-5 and rounding.
    "soba": Entry(
        lambda known: bilevel.SOBA(known.optimizer, step=rate(known)),
        "implicit",
        {torch.float64: 1e-3, torch.float32: 1e-3},
        num_steps=20,
        calls=2,
        from_solution=True,
    ),
    # Besides, a bias of order 1/multiplier; and in float32 the rounding of a gradient times the multiplier.
    "f2sa": Entry(
        lambda known: bilevel.ValueFunctionPenalty(known.optimizer, multiplier=1e3),
        "implicit",
        {torch.float64: 1e-2, torch.float32: 5e-2},
        num_steps=20,
        calls=2,
        from_solution=True,
    ),
    # Not an estimate at a point but a joint descent, at small rates: the exact hypergradient must shrink to a share.
    "bome": Entry(
        lambda known: bilevel.ValueFunctionPenalty(scaled(known, 0.2), variant="bome"),
        "descent",
        {torch.float64: 0.7, torch.float32: 0.7},
        num_steps=3,
        calls=60,
        from_solution=True,
    ),
}


def cases() -> list[object]:
    found: list[object] = []
    for method, entry in METHODS.items():
        for problem, build in PROBLEMS.items():
            known = build()
            has_answer = known.unrolled_grad if entry.answer == "unrolled" else known.implicit_grad
            if has_answer is not None and problem not in entry.skip:
                dtypes = entry.tolerance
                found += [pytest.param(entry, build, dtype, id=f"{method}-{problem}-{dtype}") for dtype in dtypes]
    return found


@pytest.mark.parametrize(("entry", "build", "dtype"), cases())
def test_gives_the_known_answer(entry: Entry, build: Callable[..., KnownProblem], dtype: torch.dtype) -> None:
    known = build(dtype=dtype)
    params, hyper, method, state = dict(known.params), dict(known.hyper), entry.build(known), None
    if entry.from_solution:
        assert known.solution is not None
        params = known.solution(known.hyper)
    given = {name: tensor.clone() for name, tensor in {**params, **hyper}.items()}
    first = {**params, **hyper}
    for _ in range(entry.calls):
        batches = [known.inner_batch] * entry.num_steps
        result = bilevel.hypergradient(
            known.problem, params, hyper, batches, known.outer_batch, method=method, state=state
        )
        params, state = result.params, result.state
        if entry.answer == "descent":
            hyper = {name: tensor - 0.2 * rate(known) * result.grad[name] for name, tensor in hyper.items()}
    assert error(entry, known, hyper, result) <= entry.tolerance[dtype]
    assert {name: tensor.dtype for name, tensor in result.grad.items()} == dict.fromkeys(known.hyper, dtype)
    assert all(result.grad[name].shape == tensor.shape for name, tensor in known.hyper.items())
    assert result.outer_loss.shape == ()
    assert result.stats["passes"] >= 1
    assert not any(tensor.requires_grad for tensor in result.grad.values())
    assert all(torch.equal(first[name], tensor) for name, tensor in given.items())
    if dtype == torch.float64:
        assert result.status.ok, result.status


def error(entry: Entry, known: KnownProblem, hyper: dict[str, torch.Tensor], result: bilevel.Result) -> float:
    if entry.answer == "unrolled":
        assert known.unrolled_grad is not None
        return relative_error(result.grad, known.unrolled_grad(entry.num_steps))
    assert known.implicit_grad is not None
    if entry.answer == "implicit":
        return relative_error(result.grad, known.implicit_grad(hyper))
    now, at_first = known.implicit_grad(hyper), known.implicit_grad(known.hyper)
    return float(tree.norm(now) / tree.norm(at_first))


ON_TREES = {name: entry for name, entry in METHODS.items() if entry.answer != "descent"}


@pytest.mark.parametrize("name", ON_TREES)
def test_nested_trees_give_what_flat_dictionaries_give(name: str) -> None:
    entry, known = METHODS[name], PROBLEMS["quadratic"]()
    assert known.solution is not None
    params = known.solution(known.hyper) if entry.from_solution else known.params

    def unpack(tree: list[tuple[torch.Tensor, ...]], like: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
        return dict(zip(like, tree[0], strict=True))

    problem = bilevel.Bilevel(
        lambda at, by, batch: known.problem.inner(unpack(at, params), unpack(by, known.hyper), batch),
        lambda at, by, batch: known.problem.outer(unpack(at, params), unpack(by, known.hyper), batch),
    )
    rest = ([known.inner_batch] * entry.num_steps, known.outer_batch)
    flat = bilevel.hypergradient(known.problem, params, known.hyper, *rest, method=entry.build(known))
    trees = ([tuple(params.values())], [tuple(known.hyper.values())])
    nested = bilevel.hypergradient(problem, *trees, *rest, method=entry.build(known))
    assert all(torch.equal(a, b) for a, b in zip(nested.grad[0], flat.grad.values(), strict=True))
    assert all(torch.equal(a, b) for a, b in zip(nested.params[0], flat.params.values(), strict=True))


# The two whose recurrences look at numbers are refused there, and BOME's direction is no answer to compare with.
UNDER_VMAP = [name for name in ON_TREES if name not in ("implicit_gmres", "implicit_bicgstab")]


@pytest.mark.parametrize("name", UNDER_VMAP)
def test_members_of_a_batch_are_what_they_are_alone(name: str) -> None:
    entry, known = METHODS[name], PROBLEMS["quadratic"]()

    def of(scale: torch.Tensor) -> dict[str, torch.Tensor]:
        hyper = {key: scale * tensor for key, tensor in known.hyper.items()}
        assert known.solution is not None
        params = known.solution(hyper) if entry.from_solution else known.params
        batches = [known.inner_batch] * entry.num_steps
        return bilevel.hypergradient(
            known.problem, params, hyper, batches, known.outer_batch, method=entry.build(known)
        ).grad

    scales = torch.tensor([1.0, -0.5], dtype=torch.float64)
    together = torch.func.vmap(of)(scales)
    for place, scale in enumerate(scales):
        alone = of(scale)
        assert relative_error({key: tensor[place] for key, tensor in together.items()}, alone) < 1e-9


@pytest.mark.parametrize("problem", ["quadratic", "ridge", "reweighted", "step_size"])
@pytest.mark.parametrize("build", [bilevel.Unrolled, bilevel.ForwardMode])
def test_a_constraint_that_never_holds_changes_nothing(build: Callable[..., bilevel.Method], problem: str) -> None:
    known = PROBLEMS[problem]()
    assert known.unrolled_grad is not None
    free = bilevel.Projected(known.optimizer, lambda params, hyper: {n: t.clamp(max=1e9) for n, t in params.items()})
    batches = [known.inner_batch] * NUM_STEPS
    result = bilevel.hypergradient(
        known.problem, known.params, known.hyper, batches, known.outer_batch, method=build(free)
    )
    assert relative_error(result.grad, known.unrolled_grad(NUM_STEPS)) < 1e-8
