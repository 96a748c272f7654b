"""Schemas refuse what they do not know, by name, with what is allowed."""

from __future__ import annotations

import math
import re
from collections.abc import Callable
from pathlib import Path

import pytest
import yaml

from dreamprm.config import ConfigError, TrainConfig, resolve_train
from dreamprm.config.build import build_weigher
from dreamprm.config.launch import compose_config
from dreamprm.config.optimizers import SGD, AdamW
from dreamprm.config.resolve import differences, to_plain
from dreamprm.config.schedule import StepDecay
from dreamprm.config.schema import EvaluateConfig, InnerConfig
from dreamprm.data.file_data import FileData
from dreamprm.policy import PolicyConfig
from dreamprm.run_files.folder import resumed_settings
from dreamprm.weigher.domain_table import DomainTableSettings
from dreamprm.weigher.instance_table import InstanceTableSettings


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("weigher.hiden=3", r"weigher\.hiden: .* did you mean hidden\?"),
        ("inner.optimizer.momentum=0.9", r"inner\.optimizer\.momentum: no such setting; inner\.optimizer allows kind"),
        ("weigher.hidden=abc", r"weigher\.hidden: Value 'abc' .* Integer"),
        (
            "weigher.kind=net",
            r"weigher\.kind: 'net' is none of domain_table, instance_net, instance_table, small_loss, step_net, "
            "step_table, trust, uniform",
        ),
        ("model.head=gen", r"model\.head: .*generative"),
        ("outer.optimizer.lr=-1", r"outer\.optimizer: lr must be above 0, is -1"),
        ("data.share=1.5", r"data: share must be at most 1, is 1.5"),
        ("outer=5", r"outer: is a group of settings \(batch_size, .*\), not 5"),
        ("weigher=foo", r"weigher=foo: no such file; options of 'weigher': domain_table"),
        ("weigher=step_net", "weighs every step, which needs hypergradient=jvp"),
        ("weigher=step_table", "moves the batch's rows only: optimizer@outer.optimizer=row_adam"),
        (
            "weigher=step_table optimizer@outer.optimizer=row_adam",
            "weigher=step_table weighs every step, which needs hypergradient=jvp",
        ),
        ("weigher=instance_table", "moves the batch's rows only: optimizer@outer.optimizer=row_adam"),
        ("foo", "'foo' is no setting: write name=value"),
        ("optimizer@inner.optimizer=row_adam", "inner.optimizer.kind: 'row_adam' is none of adam, adamw"),
    ],
)
def test_a_wrong_setting_is_named(override: str, message: str) -> None:
    with pytest.raises(ConfigError, match=message) as caught:
        resolve_train(compose_config("train", override.split()))
    assert "\n" not in str(caught.value)


def test_a_saved_configuration_comes_back() -> None:
    settings = resolve_train(compose_config("train", ["+experiment=dreamprm15_net", "seed=7"]))
    assert resolve_train(to_plain(settings)) == settings
    changed = to_plain(settings) | {"seed": 8}
    assert differences(to_plain(settings), changed) == {"seed": (7, 8)}


def test_an_override_of_a_default_that_no_file_lists_works() -> None:
    assert resolve_train(compose_config("train", ["outer.max_not_finite=3"])).outer.max_not_finite == 3


def test_the_default_settings_are_the_default_experiment() -> None:
    assert resolve_train(compose_config("train", ["+experiment=instance_net"])) == TrainConfig()
    assert resolve_train(compose_config("train")) == TrainConfig()


def test_what_all_kinds_share_is_the_places_own() -> None:
    settings = resolve_train(compose_config("train", ["optimizer@inner.optimizer=sgd", "schedule@inner.schedule=step"]))
    assert settings.inner.optimizer == SGD(lr=TrainConfig().inner.optimizer.lr)
    assert settings.inner.schedule == StepDecay(warmup=TrainConfig().inner.schedule.warmup)


def test_what_a_class_refuses_is_a_setting_error() -> None:
    with pytest.raises(ConfigError, match="weigher domain_table: a domain table needs at least one domain"):
        build_weigher(DomainTableSettings(), num_examples=2, num_domains=0)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: AdamW(betas=[2.0, 0.9]), "betas must be below 1, is 2.0"),
        (lambda: AdamW(betas=[0.9]), "betas must be two numbers"),
        (lambda: AdamW(lr=math.nan), "lr must be a number within"),
        (lambda: AdamW(lr=1e38), "lr must be a number within"),
        (lambda: SGD(nesterov=True, momentum=0.0), "nesterov=true needs momentum above 0"),
        (lambda: InstanceTableSettings(start=9.0), "start=9.0 must lie between"),
        (lambda: InnerConfig(batch_size=10**23), "batch_size must lie within ±2147483647, is 100000000000"),
        (lambda: InnerConfig(loss="mes"), "'mes' is no loss; allowed are cross_entropy, mse; did you mean mse?"),
        (lambda: TrainConfig(seed=-1), "seed must be at least 0, is -1"),
        (lambda: EvaluateConfig(num_candidates=[1, 0]), "num_candidates must be at least 1, is 0"),
        (lambda: PolicyConfig(temperature=math.nan), "temperature must be a number within"),
        (lambda: FileData(limit=-5), "limit must be at least 1, is -5"),
    ],
)
def test_a_value_that_cannot_work_is_refused_when_the_settings_are_made(
    make: Callable[[], object], message: str
) -> None:
    with pytest.raises(ValueError, match=re.escape(message)):
        make()


def test_a_run_folder_of_the_old_layout_is_refused_in_one_line(tmp_path: Path) -> None:
    old = {"name": "x", "weigher": {"kind": "uniform", "target": "dreamprm.weigher.Uniform"}}
    (tmp_path / "config.yaml").write_text(yaml.safe_dump(old))
    words = [f"resume={tmp_path}"]
    with pytest.raises(ConfigError, match=r"is of an earlier version .* start a new run") as caught:
        resumed_settings(compose_config("train", words), words)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("path", ["x(1).jsonl", "it's here.jsonl", "a=b.jsonl", "*.jsonl", "[a, b.jsonl]"])
def test_any_file_name_can_be_written(path: str) -> None:
    settings = resolve_train(compose_config("train", ["data=files", f"data.path={path}"]))
    assert isinstance(settings.data, FileData)
    assert settings.data.path == (["a", "b.jsonl"] if path.startswith("[") else path)
