"""Schemas refuse what they do not know, by name, with what is allowed."""

from __future__ import annotations

import pytest

from dreamprm.config import ConfigError, resolve_train
from dreamprm.config.build import build_optimizer, build_weigher, locate
from dreamprm.config.kinds import AdamW, InstanceTable, Uniform
from dreamprm.config.launch import compose_config
from dreamprm.config.resolve import differences, to_plain


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("weigher.hiden=3", r"weigher\.hiden: .* did you mean hidden\?"),
        ("inner.optimizer.momentum=0.9", r"inner\.optimizer\.momentum: no such setting; inner\.optimizer allows kind"),
        ("weigher.hidden=abc", r"weigher\.hidden: Value 'abc' .* Integer; the default is 32"),
        ("weigher.kind=net", r"weigher\.kind: 'net' is none of domain_table, instance_net, instance_table, uniform"),
        ("model.head=gen", r"model\.head: .*generative"),
        ("outer.optimizer.lr=-1", r"outer\.optimizer: lr must be above 0, is -1"),
        ("data.flipped=1.5", r"data: flipped is a probability in \[0, 1\], is 1.5"),
        ("outer=5", r"outer: is a group of settings \(batch_size, .*\), not 5"),
        ("weigher=foo", r"weigher/foo'; options of 'weigher': domain_table"),
        ("weigher=instance_table", "moves the batch's rows only: optimizer@outer.optimizer=row_adam"),
        ("foo", "'foo' is no setting: write name=value"),
    ],
)
def test_a_wrong_setting_is_named(override: str, message: str) -> None:
    with pytest.raises(ConfigError, match=message) as caught:
        resolve_train(compose_config("train", [override]))
    assert "\n" not in str(caught.value)


def test_a_saved_configuration_comes_back() -> None:
    settings = resolve_train(compose_config("train", ["+experiment=dreamprm15_net", "seed=7"]))
    assert resolve_train(to_plain(settings)) == settings
    changed = to_plain(settings) | {"seed": 8}
    assert differences(to_plain(settings), changed) == {"seed": (7, 8)}


def test_an_override_of_a_default_that_no_file_lists_works() -> None:
    assert resolve_train(compose_config("train", ["outer.max_not_finite=3"])).outer.max_not_finite == 3


@pytest.mark.parametrize("target", ["os.system", "torch.load", "builtins.eval", "dreamprmx.weigher.Uniform"])
def test_only_our_own_prefixes_are_built(target: str) -> None:
    with pytest.raises(ConfigError, match="only names below"):
        locate(target)
    with pytest.raises(ConfigError, match="only names below"):
        build_weigher(Uniform(target=target), num_examples=1, num_domains=1)


def test_what_is_allowed_but_does_not_exist_says_so() -> None:
    with pytest.raises(ConfigError, match="cannot be found"):
        locate("dreamprm.weigher.Nothing")


def test_what_a_class_refuses_is_a_setting_error() -> None:
    import torch

    with pytest.raises(ConfigError, match=r"weigher instance_table: start=9.0 must lie between"):
        build_weigher(InstanceTable(start=9.0), num_examples=2, num_domains=1)
    with pytest.raises(ConfigError, match="optimizer adamw: Invalid beta parameter"):
        build_optimizer(AdamW(betas=[2.0, 0.9]), [torch.nn.Parameter(torch.ones(1))])
