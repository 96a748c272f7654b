"""The memory that `plan=true` prints, against what the allocator really handed out."""

from __future__ import annotations

import gc
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from torch.profiler import ProfilerActivity, profile

from dreamprm.commands.train import main
from dreamprm.config import TrainConfig
from dreamprm.errors import UserError
from dreamprm.phases.state import Run
from dreamprm.phases.trust_plan import meta_halves
from dreamprm.plan.footprint import longest
from dreamprm.plan.planner import plan_run, show_plan
from dreamprm.trainer.loop import enter_phase
from dreamprm.trainer.run import prepare

Settings = Callable[..., TrainConfig]


def _peak(run: Run) -> int:
    """The most tensor memory during two updates on batches of the longest chain, as the allocator counted it."""
    places = {"inner": longest(run, run.train), "looks": longest(run, run.train), "outer": longest(run, run.meta)}
    for name, rows in zip(("half1", "half2"), meta_halves(run.meta) if "half1" in run.samplers else (), strict=False):
        places[name] = longest(run, [run.meta[row] for row in rows])
    for name, place in places.items():
        if name not in run.samplers:
            continue
        run.samplers[name].draw = lambda count, place=place: [place] * count  # type: ignore[method-assign]
    held = (*run.prm.parameters(), *run.prm.buffers(), *run.weigher.parameters(), *run.weigher.buffers())
    size = sum(value.numel() * value.element_size() for value in (*held, *run.fresh.values()))
    run.prm.train()
    gc.collect()  # what an earlier run left is not to be freed while this one is counted
    with profile(activities=[ProfilerActivity.CPU], profile_memory=True, acc_events=True) as profiler:
        phase = enter_phase(run)
        for _ in range(2):
            run.update += phase.update().num_updates
    events = profiler.profiler.kineto_results.events()
    changes = sorted((event.start_ns(), event.nbytes()) for event in events if event.name() == "[memory]")
    peak = size
    for _, change in changes:
        size += change
        peak = max(peak, size)
    return peak


# With equal rows and at Adam's first step d is 0 up to rounding, so that the check compares noise: it may only log.
# What it holds is the same. Seen: .93 to 1.10; beside so few chains the states of the tiny model's optimizer, which are
# planned in full, are much. The plan leaves out what a backward pass needs for one layer's own work (1 to 3 % here),
# and how much that is depends on the kernel; .1 covers it.
@pytest.mark.parametrize(
    "overrides",
    [
        ("hypergradient=ghost",),
        ("hypergradient=ghost", "outer.batch_size=6", "outer.accumulate=2"),
        ("hypergradient=jvp", "optimizer@inner.optimizer=adamw8bit"),
        ("weigher=uniform", "model.vision=frozen"),
        ("weigher=uniform", "inner.meta_weight=1", "inner.meta_batch_size=24"),
        ("weigher=trust", "hypergradient=jvp", "weigher.passes=4"),
        ("weigher=trust", "hypergradient=jvp", "weigher.passes=0", "cold.batch_size=16", "weigher.judge_updates=2"),
    ],
    ids=[
        "ghost",
        "two outer micro-batches",
        "jvp, 8 bits",
        "uniform, frozen tower",
        "meta set beside",
        "looks",
        "judges",
    ],
)
def test_the_plan_is_within_a_tenth_of_the_measured_peak(tiny_settings: Settings, overrides: tuple[str, ...]) -> None:
    sizes = ("inner.batch_size=12", "outer.batch_size=12", "outer.begin=0", "cold.updates=0", "model.cache=0")
    _, run = prepare(tiny_settings(*sizes, "hypergradient.check=log", *overrides), Path("."))
    torch.manual_seed(0)
    assert plan_run(run).peak == pytest.approx(_peak(run), rel=0.1)


def test_a_plan_is_printed_and_nothing_is_started(
    tiny_files: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    files = [
        f"{name}.{key}"
        for name in ("data", "meta")
        for key in (f"path={tiny_files / name.replace('data', 'train')}.jsonl", f"images={tiny_files}")
    ]
    main(
        [
            "data=files",
            "meta=files",
            *files,
            f"model.path={tiny_files / 'base'}",
            f"run_dir={tmp_path}/run",
            "plan=true",
            *(f"{level}.batch_size=4" for level in ("cold", "inner", "outer")),
        ],
        "train",
    )
    lines = capsys.readouterr().out.splitlines()
    assert any("memory of a run on cpu, before it starts" in line for line in lines)
    assert [line.split("  ")[0] for line in lines[-3:]] == ["peak", "fits 24 GB", "fits 80 GB"]
    assert not list(tmp_path.iterdir())


def test_what_a_frozen_body_gives_is_kept_as_it_is(tiny_settings: Settings) -> None:
    _, run = prepare(tiny_settings("model.trained=last_feed_forward", "weigher=trust", "hypergradient=jvp"), Path("."))
    assert 0 < plan_run(run).peak < plan_run(prepare(tiny_settings("model.cache=0"), Path("."))[1]).peak
    assert run.prm.kept is not None
    assert all(value.isfinite().all() for value in run.prm.kept.store.memory.values())


def test_larger_batches_need_more_and_the_largest_fits(tiny_settings: Settings) -> None:
    plan = show_plan(tiny_settings())
    limit = 2**30
    most = plan.largest_batch(limit)
    assert max(plan.phases(most, most).values()) <= limit < max(plan.phases(most + 1, most + 1).values())


def test_a_plan_leaves_no_features_behind(tiny_settings: Settings, tmp_path: Path) -> None:
    """They are sizes without numbers: a run that goes on with them would be trained on whatever lay in memory."""
    words = ("model.vision=cached", f"model.features={tmp_path / 'features'}", "cold.updates=0", "prefetch=false")
    _, run = prepare(tiny_settings(*words), Path("."))
    vision = run.prm.vision
    assert vision is not None
    batch = run.batch(run.train, range(3))
    with torch.no_grad():
        run.prm.vision = None
        expected = run.prm(batch)
        run.prm.vision = vision
    plan_run(run)
    assert not vision.store.memory
    assert not list(tmp_path.rglob("*.safetensors"))
    with torch.no_grad():
        torch.testing.assert_close(run.prm(batch), expected)
    assert vision.store.memory, "its own features are kept as always"


def test_what_is_not_planned_is_refused(tiny_settings: Settings) -> None:
    with pytest.raises(UserError, match=r"does not know the memory of hypergradient.unroll > 1"):
        show_plan(tiny_settings("hypergradient.unroll=2", "outer.every=2"))
    with pytest.raises(UserError, match=r"it does not know distributed.shard=true; plan without it"):
        show_plan(tiny_settings("distributed.shard=true"))
