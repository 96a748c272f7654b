"""`profile=true` changes no number of the run, goes on over a resume, and tells each part its own seconds."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import torch
from omegaconf import OmegaConf
from safetensors.torch import load_file

from bilevel.spans import listening, span
from dreamprm.config import TrainConfig
from dreamprm.metrics import read_metrics
from dreamprm.profiling.clock import REST, Clock
from dreamprm.profiling.profile_page import profile_lines
from dreamprm.run_files.checkpoint import latest_checkpoint, load_latest
from dreamprm.run_files.folder import resumed_settings
from dreamprm.trainer.run import train

Settings = Callable[..., TrainConfig]


def _ticks() -> Iterator[float]:
    now = 0.0
    while True:
        yield now
        now += 1.0


def test_a_part_has_its_own_seconds() -> None:
    ticks = _ticks()
    settled: list[str] = []
    clock = Clock(lambda: next(ticks), settle=lambda: settled.append("settled"))
    clock.start()  # 0
    with listening(clock), span("outer"), span("inner"):  # 1, 2, and 3, 4
        assert not settled, "on a GPU nothing waits before the end"
    seconds = clock.stop()  # 5
    assert seconds == {REST: 2.0, "outer": 2.0, "inner": 1.0}
    assert settled == ["settled"]
    with span("outer"):
        pass
    assert next(ticks) == 6.0, "nobody listens: the clock is not read"


def test_an_error_inside_a_part_ends_it() -> None:
    clock = Clock()
    clock.start()
    with listening(clock):
        with pytest.raises(RuntimeError, match="inside"), span("a"):
            raise RuntimeError("inside")
        with span("b"):
            pass
    assert set(clock.stop()) == {"a", "b", REST}


def _state(folder: Path) -> dict[str, torch.Tensor]:
    path = latest_checkpoint(folder / "checkpoints")
    assert path is not None
    return load_file(path / "state.safetensors")


# peft 0.21 asks transformers 5.23 for a property by its old name.
@pytest.mark.filterwarnings("ignore:`is_gradient_checkpointing` is deprecated:FutureWarning")
def test_a_profiled_run_is_the_run(tiny_settings: Settings, capsys: pytest.CaptureFixture[str]) -> None:
    """Floor passes and torch.profiler between the updates, dropout on, stopped and resumed: every bit as without."""
    words = ("model.lora.rank=2", "model.lora.dropout=0.2", "inner.updates=9", "evaluate.num_questions=1")
    plain = train(tiny_settings(*words, run="plain"))
    settings = tiny_settings(*words, "profile=true", "stop_at=6", run="profiled")
    assert train(settings) is None
    folder = Path(str(settings.run_dir))
    stopped = load_latest(folder / "checkpoints")
    assert stopped is not None
    bilevel = stopped.tree["counters"]["profile"]["bilevel"]
    # 4 bilevel updates by then, two of which torch.profiler looked at.
    assert bilevel["updates"] == 2
    composed = OmegaConf.create({"resume": str(folder), "stop_at": None})
    assert train(resumed_settings(composed, ["++stop_at=null"])) == folder
    assert plain is not None
    assert read_metrics(plain / "metrics.jsonl") == read_metrics(folder / "metrics.jsonl")
    one, two = _state(plain), _state(folder)
    assert all(torch.equal(value, two[name]) for name, value in one.items())
    page = (folder / "profile.md").read_text()
    assert "times the floor" in page
    assert "by torch.profiler" in page
    assert "aten::" in page
    for part in ("data", "inner forward", "products", "u = D v", "weigher", "outer backward", "logging"):
        assert f"| {part} " in page, part
    shown = capsys.readouterr().out
    assert "times the floor" in shown
    assert f"profile: {folder / 'profile.md'}" in shown


def test_the_table_adds_up() -> None:
    tally = {"updates": 2, "parts": {"data": 1.0, "products": 3.0}, "floor": 2.0, "beside_floor": 3.0}
    lines = profile_lines({"bilevel": tally | {"chains": 8, "tokens": 30, "places": 40}})
    text = "\n".join(lines)
    assert "| all      |               2.0000 |       |" in text
    assert "| products |               1.5000 | 75.0% |" in text
    assert "waited for 25.0%" in text
    assert "2.0 chains a second" in text
    assert "25% of the positions" in text
    assert "**1.50 times the floor**" in text
