"""What a PRM that is split over processes cannot do is refused by name; that it is the same run: test_one_run.py."""

from __future__ import annotations

import pytest

from dreamprm.config import resolve_train
from dreamprm.config.launch import compose_config
from dreamprm.phases.sharding import unsupported


@pytest.mark.parametrize(
    ("words", "named"),
    [
        (("hypergradient=jvp",), "hypergradient.product=jvp"),
        (("weigher=trust", "hypergradient=jvp"), "weigher=trust"),
        (("model.vision=cached",), "model.vision=cached"),
        (("model.freeze_layers=1", "model.vision=frozen"), "model.freeze_layers=1"),
        (("model.trained=last_feed_forward",), "model.trained=last_feed_forward"),
        (("model.gradient_checkpointing=true",), "model.gradient_checkpointing=true"),
        (("outer.by_question=true",), "outer.by_question=true"),
        (("profile=true",), "profile=true"),
        (("optimizer@inner.optimizer=adamw8bit",), "inner.optimizer.kind=adamw8bit"),
        (("optimizer@cold.optimizer=adamw8bit",), "cold.optimizer.kind=adamw8bit"),
    ],
)
def test_what_needs_whole_parameters_is_named_with_the_way_out(words: tuple[str, ...], named: str) -> None:
    settings = resolve_train(compose_config("train", ["hypergradient=ghost", "distributed.shard=true", *words]))
    said = unsupported(settings)
    assert said is not None
    assert said.startswith(f"{named} needs whole parameters in every process: use ")
    assert said.endswith("or distributed.shard=false")


def test_the_default_with_shards_is_supported() -> None:
    assert unsupported(resolve_train(compose_config("train", ["distributed.shard=true"]))) is None
