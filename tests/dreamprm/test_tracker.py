"""What a tracker shows is what metrics.jsonl holds, after the run and after a resume."""

from __future__ import annotations

import math
from collections.abc import Callable
from pathlib import Path

import pytest
from omegaconf import OmegaConf

from dreamprm.config import TrainConfig
from dreamprm.metrics import read_metrics
from dreamprm.run_files.folder import resumed_settings
from dreamprm.trainer.run import train

pytest.importorskip("tensorboard", reason="pip install 'dreamprm[tensorboard]'")


def _shown(folder: Path) -> dict[tuple[str, int], float]:
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    log = EventAccumulator(str(folder / "tensorboard"), size_guidance={"scalars": 0})
    log.Reload()
    return {(name, event.step): event.value for name in log.Tags()["scalars"] for event in log.Scalars(name)}


def test_a_finished_log_holds_the_metrics(tiny_settings: Callable[..., TrainConfig]) -> None:
    settings = tiny_settings("tracker=tensorboard", "stop_at=3")
    assert train(settings) is None
    composed = OmegaConf.create({"resume": settings.run_dir, "stop_at": None})
    folder = train(resumed_settings(composed, [f"++{name}={value}" for name, value in composed.items()]))
    assert folder is not None
    written = {
        (name, row["update"]): value
        for row in read_metrics(folder / "metrics.jsonl")
        for name, value in row.items()
        if name not in ("update", "phase") and value is not None
    }
    shown = _shown(folder)
    assert set(shown) == set(written)
    assert {update for _, update in shown} == {0, 1, 2, 3, 4}
    # Event files hold fp32.
    assert all(math.isclose(shown[place], value, rel_tol=1e-6, abs_tol=1e-30) for place, value in written.items())
