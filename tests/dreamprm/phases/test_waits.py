"""On a GPU an update of a run waits for the device a fixed number of times, for numbers that it logs or checks."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
from tests.waits import waits

from bilevel.lookahead.rules import linear
from dreamprm.config import TrainConfig
from dreamprm.trainer.loop import enter_phase
from dreamprm.trainer.run import prepare

Settings = Callable[..., TrainConfig]

MOST = {"cold": 20, "bilevel": 36}
"""Of transformers' own (are there as many image features as places; is the mask causal alone) up to seven a pass."""


def test_no_wait_for_each_parameter(tiny_settings: Settings, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(linear, "_positions_in_use", lambda rows, delta: None)  # on a GPU it does not look
    _, run = prepare(tiny_settings("cold.updates=2", "inner.updates=4", "hypergradient.check=off"), Path())
    run.prm.train()
    number = len(run.trainable())
    assert number > max(MOST.values()), "one wait for each parameter would be seen"
    for update in range(6):
        phase = enter_phase(run)
        counters = [state["step"] for one in phase.optimizers.values() for state in one.state.values()]
        with waits(on_cpu=counters) as found:
            run.update += phase.update().num_updates
        # What the collator and the samplers do is on the CPU.
        found = {place: count for place, count in found.items() if "/prm/collate.py" not in place}
        found = {place: count for place, count in found.items() if "/sources/" not in place}
        if update in (1, 5):
            assert 0 < sum(found.values()) <= MOST[phase.name.value], found
    run.ahead.close()
