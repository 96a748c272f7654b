"""How many files one opens to add a thing: an aggregation 1, an inner loss 1, an experiment 1, a weigher 3, a source 2.

Each is added here in just those places, and one run uses them all; everything else finds them by the tables.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from torch import Tensor

import dreamprm
from dreamprm.commands.help import found_lines
from dreamprm.commands.train import main as train_command
from dreamprm.config import conf_dir, launch, resolve_train
from dreamprm.config.launch import compose_config, experiments
from dreamprm.data.file_data import DataSettings
from dreamprm.data.record import Record
from dreamprm.loss import INNER_LOSSES
from dreamprm.prm.aggregation import AGGREGATIONS, Aggregation
from dreamprm.setting import setting
from dreamprm.sources import SOURCES, Source
from dreamprm.weigher import WEIGHERS, Features, Weigher, WeigherSettings
from dreamprm.weigher import load as load_weigher

# The one file of an aggregation is prm/aggregation.py, of a loss loss.py: an entry of the table there.
_AGGREGATION = Aggregation(lambda p, z, log_p, mask: p.masked_fill(~mask, 0.0).square().sum(1).sqrt(), torch.tanh)


def _huber(logits: Tensor, target: Tensor) -> Tensor:
    return torch.nn.functional.huber_loss(logits.sigmoid(), target, reduction="none")


# A weigher's three: its own file, the table in weigher/building.py, conf/weigher/NAME.yaml.
@dataclass
class ToySettings(WeigherSettings):
    """One weight per number of steps."""

    kind: str = "toy"
    longest: int = setting(8, "chains of more steps share a weight", least=1)


class Toy(Weigher):
    def __init__(self, longest: int = ToySettings.longest) -> None:
        super().__init__()
        self.settings = {"longest": longest}
        self.raw = torch.nn.Parameter(torch.zeros(longest + 1))

    def forward(self, features: Features) -> Tensor:
        return 2 * self.raw[features.num_steps.clamp_max(len(self.raw) - 1)].sigmoid()


# A source's two: its own file, the table in sources/run_data.py.
@dataclass
class SumData(DataSettings):
    """Sums of two equal numbers, every second one wrong."""

    kind: str = "sums"
    seed: int = setting(0, "the first number", least=0)
    num_chains: int = setting(12, "chains", least=2)


class Sums(Source):
    def train(self) -> Sequence[Record]:
        return [self._record(self.settings.seed + row) for row in range(self.settings.num_chains)]

    def meta(self) -> Sequence[Record]:
        return [self._record(100 + row) for row in range(8)]

    def _record(self, number: int) -> Record:
        right = number % 2 == 0
        steps = (f"{number} + {number}", f"= {2 * number + (not right)}")[number % 2 :]
        text = f"What is {number} + {number}?"
        about: dict[str, Any] = {"source": "sums", "domain": "sum", "group": str(number), "question": text}
        return Record(key=f"sums:{number}", steps=steps, labels=(float(right),) * len(steps), correct=right, **about)


@pytest.fixture
def conf(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A copy of the configuration that files can be added to."""
    folder = tmp_path / "conf"
    shutil.copytree(conf_dir(), folder)
    monkeypatch.setattr(launch, "conf_dir", lambda: folder)
    return folder


def test_one_run_uses_an_addition_of_each_kind(
    conf: Path, tmp_path: Path, tiny_files: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from dreamprm.trainer.run import train

    monkeypatch.setitem(AGGREGATIONS, "norm", _AGGREGATION)
    monkeypatch.setitem(INNER_LOSSES, "huber", _huber)
    monkeypatch.setitem(WEIGHERS, "toy", (ToySettings, Toy))
    monkeypatch.setitem(SOURCES, "sums", (SumData, Sums))
    (conf / "weigher" / "toy.yaml").write_text("kind: toy\n")
    (conf / "experiment" / "toy.yaml").write_text(
        "# @package _global_\n"
        "defaults:\n  - override /weigher: toy\n\n"
        "name: toy\ndescription: an addition of each kind\n"
        "data: {kind: sums}\nmeta: {kind: sums}\n"
        "cold: {updates: 1, batch_size: 4}\n"
        "inner: {updates: 3, batch_size: 4, loss: huber}\n"
        "outer: {batch_size: 4, begin: 0, aggregate: norm, loss: mse}\n"
    )
    assert experiments()["toy"] == "an addition of each kind"
    assert dreamprm.aggregate([0.6, 0.8], "norm") == pytest.approx(1.0)
    assert any("weigher.longest=8" in line for line in found_lines(train_command, ["longest"]))

    place = [f"model.path={tiny_files / 'base'}", f"run_dir={tmp_path / 'run'}"]
    folder = train(resolve_train(compose_config("train", ["experiment=toy", *place])))
    assert folder is not None
    saved = yaml.safe_load((folder / "config.yaml").read_text())
    assert saved["weigher"] == {"kind": "toy", "longest": 8}
    assert saved["data"] == {"kind": "sums", "seed": 0, "num_chains": 12}
    assert json.loads((folder / "results.json").read_text())["cost"]["outer_updates"] == 3
    learned = load_weigher(folder / "weigher.safetensors")
    assert isinstance(learned, Toy)
    assert learned.raw.abs().sum() > 0


def test_an_experiment_is_one_file(conf: Path) -> None:
    (conf / "experiment" / "slow.yaml").write_text("# @package _global_\nname: slow\ninner: {updates: 7}\n")
    settings = resolve_train(compose_config("train", ["experiment=slow"]))
    assert (settings.name, settings.inner.updates) == ("slow", 7)
