"""Every experiment composes; those that need no download run two updates; the others run on tiny files instead."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest

from dreamprm.config import TrainConfig, UserError, conf_dir, resolve_train
from dreamprm.config.launch import compose_config
from dreamprm.sources import check_needs
from dreamprm.trainer.run import train

EXPERIMENTS = sorted(path.stem for path in (conf_dir() / "experiment").glob("*.yaml"))
PAPERS = [name for name in EXPERIMENTS if name.startswith("dreamprm")]
WORLD = [
    name for name in EXPERIMENTS if resolve_train(compose_config("train", [f"+experiment={name}"])).data.kind == "world"
]
SMALL = [
    "data.num_chains=12",
    "meta.num_chains=8",
    "cold.updates=1",
    "cold.batch_size=2",
    "inner.updates=3",
    "inner.batch_size=4",
    "outer.batch_size=4",
    "outer.every=1",
    "outer.begin=1",
    "evaluate.num_questions=3",
    "evaluate.num_resamples=10",
    "model.cache=0",
]


@pytest.mark.parametrize("name", EXPERIMENTS)
def test_it_composes_under_its_own_name(name: str) -> None:
    settings = resolve_train(compose_config("train", [f"+experiment={name}", "seed=3"]))
    assert settings.name == name
    assert settings.seed == 3
    assert settings.description


@pytest.mark.parametrize("name", WORLD)
def test_it_trains_on_the_world(name: str, tmp_path: Path) -> None:
    overrides = [f"+experiment={name}", *SMALL, f"run_dir={tmp_path / 'run'}"]
    folder = train(resolve_train(compose_config("train", overrides)))
    assert folder is not None
    results = json.loads((folder / "results.json").read_text())
    assert set(results["best_of_n"]) == {"policy", "self_consistency", "prm", "weighted_vote", "oracle"}
    assert set(results["best_of_n"]["prm"]) == {"1", "2", "4", "8"}
    assert set(results["best_of_n"]["prm"]["8"]) == {"value", "low", "high", "n"}
    learns = resolve_train(compose_config("train", overrides)).weigher.learns
    made = results["cost"]["outer_updates"]
    assert made > 2 if name == "trust" else made == (2 if learns else 0)  # it looks at every chain twice


@pytest.mark.parametrize("name", PAPERS)
def test_the_papers_say_in_one_line_what_they_need(name: str) -> None:
    settings = resolve_train(compose_config("train", [f"+experiment={name}"]))
    with pytest.raises(UserError, match=f"experiment {name} needs: ") as caught:
        check_needs(settings)
    assert "\n" not in str(caught.value)
    for word in ("data.path", "meta.path", "model.path"):
        assert word in str(caught.value)


@pytest.mark.parametrize("name", PAPERS)
def test_the_papers_recipes_run(name: str, tiny_settings: Callable[..., TrainConfig]) -> None:
    settings = tiny_settings(
        "outer.every=1", "outer.begin=1", "inner.batch_size=1", "outer.batch_size=1", experiment=name
    )
    # A batch of one chain on both levels, as published, with everything else of the recipe as it is.
    folder = train(settings)
    assert folder is not None
    assert (folder / "prm" / "prm.json").is_file()
