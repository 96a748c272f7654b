"""A user's own weigher, source and loss from a module of their own: by the command line's leave, never by a file's."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import yaml
from safetensors import safe_open

from dreamprm.config import ConfigError, resolve_train
from dreamprm.config.launch import compose_config

_PACKAGE = '''
"""A package of a user's own; importing it leaves a mark."""

import pathlib

import torch

from dreamprm.data.record import Record
from dreamprm.sources import Source
from dreamprm.weigher import Weigher

pathlib.Path(__file__).with_name("imported").touch()


class SoftTable(Weigher):
    """weight_d = exp(strength raw_d)."""

    def __init__(self, num_domains: int, strength: float = 1.0, names: list[str] = []):
        super().__init__()
        self.settings = {"num_domains": num_domains, "strength": strength}
        self.strength = strength
        self.raw = torch.nn.Parameter(torch.zeros(num_domains))

    def forward(self, features):
        return (self.strength * self.raw)[features.domain].exp()


def absolute(logits, target):
    return (logits.sigmoid() - target).abs()


class Sums(Source):
    """Sums of two numbers, every second one wrong."""

    def train(self):
        return [self._record(i, "train") for i in range(12)]

    def meta(self):
        return [self._record(i, "meta") for i in range(20, 28)]

    def _record(self, i, split):
        right = i % 2 == 0
        return Record(
            key=f"{split}:{i}", source="sums", domain="sum", group=f"{split}:{i}", question=f"What is {i} + {i}?",
            steps=(f"{i} + {i} = {2 * i + (not right)}",), labels=(float(right),), correct=right,
        )
'''


@pytest.fixture
def package(tmp_path: Path) -> Path:
    """The folder that the package `my_prm` is installed in."""
    folder = tmp_path / "site"
    (folder / "my_prm").mkdir(parents=True)
    (folder / "my_prm" / "__init__.py").write_text("")
    (folder / "my_prm" / "parts.py").write_text(_PACKAGE)
    return folder


def _dreamprm(package: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    path = os.pathsep.join(item for item in (str(package), os.environ.get("PYTHONPATH", "")) if item)
    command = [sys.executable, "-m", "dreamprm", *arguments]
    environment = {**os.environ, "PYTHONPATH": path}
    return subprocess.run(
        command, capture_output=True, text=True, timeout=300, check=False, env=environment, cwd=package
    )


_SMALL = (
    "data.num_chains=8",
    "meta.num_chains=6",
    "cold.updates=0",
    "inner.updates=3",
    "inner.batch_size=4",
    "outer.batch_size=4",
    "outer.begin=0",
    "evaluate.num_questions=1",
    "evaluate.num_resamples=2",
)


def test_an_own_weigher_and_loss_train_where_the_command_line_allows_their_module(
    package: Path, tmp_path: Path
) -> None:
    own = ("weigher=my_prm.parts:SoftTable", "weigher.strength=2", "inner.loss=my_prm.parts:absolute")
    run = tmp_path / "run"
    refused = _dreamprm(package, "train", *own, *_SMALL, f"run_dir={run}")
    assert refused.returncode == 2
    assert "would import my_prm.parts, which the command line does not allow: add allow=my_prm" in refused.stderr
    assert not (package / "my_prm" / "imported").exists(), "nothing of it ran"
    assert not run.exists()

    done = _dreamprm(package, "train", "allow=my_prm", *own, *_SMALL, f"run_dir={run}", "stop_at=2")
    assert done.returncode == 130, done.stderr
    saved = yaml.safe_load((run / "config.yaml").read_text())
    assert saved["weigher"] == {"kind": "my_prm.parts:SoftTable", "strength": 2.0, "names": []}
    assert "allow" not in saved, "leave is not kept in a file"

    resumed = _dreamprm(package, "train", f"resume={run}")
    assert resumed.returncode == 2
    assert "add allow=my_prm to the command" in resumed.stderr
    resumed = _dreamprm(package, "train", f"resume={run}", "allow=my_prm")
    assert resumed.returncode == 0, resumed.stderr
    assert json.loads((run / "results.json").read_text())["cost"]["outer_updates"] == 3
    with safe_open(str(run / "weigher.safetensors"), "pt") as file:
        (about,) = (file.metadata() or {}).values()
        assert json.loads(about)["kind"] == "my_prm.parts:SoftTable"
        assert file.get_tensor("weigher.raw").abs().sum() > 0, "its weights were learned"


def test_an_own_source_is_trained_on(
    package: Path, tmp_path: Path, tiny_files: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from dreamprm.trainer.run import train

    monkeypatch.syspath_prepend(str(package))
    own = ["allow=my_prm", "data=my_prm.parts:Sums", "meta=my_prm.parts:Sums", f"model.path={tiny_files / 'base'}"]
    sizes = ["cold.updates=1", "inner.updates=2", "outer.begin=0", "outer.batch_size=4"]
    sizes += ["cold.batch_size=4", "inner.batch_size=4", f"run_dir={tmp_path / 'run'}"]
    folder = train(resolve_train(compose_config("train", [*own, *sizes])))
    assert folder is not None
    assert yaml.safe_load((folder / "config.yaml").read_text())["data"] == {"kind": "my_prm.parts:Sums"}
    assert json.loads((folder / "results.json").read_text())["weights"]["domains"].keys() == {"sum"}


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["weigher=os:system"], "would import os, which the command line does not allow: add allow=os"),
        (["weigher=os:system", "allow=os"], "weigher=os:system: is no subclass of dreamprm.weigher.weigher.Weigher"),
        (["weigher.kind=os.path:join", "allow=json"], "add allow=os to the command"),
        (["weigher=nowhere_at_all:X", "allow=nowhere_at_all"], "nowhere_at_all cannot be imported"),
        (["weigher=json:Nothing", "allow=json"], "json has no Nothing"),
        (["inner.loss=json:JSONDecoder", "allow=json"], "is no function of a loss"),
        (["allow=../evil"], "allow=../evil: is no module's name"),
    ],
)
def test_what_is_not_allowed_or_not_there_is_refused(words: list[str], message: str) -> None:
    with pytest.raises(ConfigError, match=message.replace(".", r"\.")):
        resolve_train(compose_config("train", words))


def test_leave_of_one_command_line_ends_with_it() -> None:
    with pytest.raises(ConfigError, match="is no subclass"):
        resolve_train(compose_config("train", ["weigher=os:system", "allow=os"]))
    with pytest.raises(ConfigError, match="does not allow"):
        resolve_train(compose_config("train", ["weigher=os:system"]))
