"""outer.by_question: what the chains of a question share is read once, and the run is the one that reads them whole."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from dreamprm.config import resolve_train
from dreamprm.config.launch import compose_config
from dreamprm.errors import ConfigError
from dreamprm.prm import shared_prefix
from dreamprm.trainer.run import train

SMALL = (
    "+experiment=instance_net", "optimizer@inner.optimizer=sgd", "inner.optimizer.lr=0.01", "data.num_chains=12",
    "meta.num_chains=16", "cold.updates=0", "inner.updates=3", "inner.batch_size=4", "outer.batch_size=8",
    "outer.begin=0", "inner.meta_weight=0.5", "evaluate.num_questions=2", "evaluate.num_resamples=10",
)  # fmt: skip


def _metrics(folder: Path, *words: str) -> dict[str, list[float]]:
    done = train(resolve_train(compose_config("train", [*SMALL, *words, f"run_dir={folder}"])))
    assert done is not None
    rows = [json.loads(line) for line in (done / "metrics.jsonl").read_text().splitlines()]
    return {name: [row[name] for row in rows] for name in ("outer_loss", "hypergradient_norm", "inner_loss")}


def test_the_same_run_as_reading_whole_chains(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    shared = _metrics(tmp_path / "shared", "outer.by_question=true")
    drawn = _metrics(tmp_path / "drawn")
    monkeypatch.setattr(shared_prefix, "shares_prefix", lambda prm: False)
    whole = _metrics(tmp_path / "whole", "outer.by_question=true")
    for name, values in shared.items():
        # float32 sums in another order: 1e-7 of log-odds of about 1, whose contrast is small. Adam's first steps are
        # signs, which would blow their rounding up.
        assert values == pytest.approx(whole[name], rel=1e-5, abs=5e-7), name
    assert drawn["outer_loss"] != pytest.approx(whole["outer_loss"], rel=1e-2), "single chains are another batch"


def test_what_cannot_share_is_refused() -> None:
    for words, way_out in (
        (("hypergradient.unroll=2", "outer.every=2"), r"hypergradient\.unroll=1"),
        (("model.gradient_checkpointing=true",), r"model\.gradient_checkpointing=false"),
    ):
        with pytest.raises(ConfigError, match=r"outer\.by_question=true needs " + way_out):
            resolve_train(compose_config("train", [*SMALL, "outer.by_question=true", *words]))
