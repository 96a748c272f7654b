"""TRL's GRPO trains a tiny policy by a tiny PRM's reward."""

from __future__ import annotations

import importlib.util
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("trl", reason="needs the extra rl: pip install 'dreamprm[rl]'")


# TRL and what it imports announce removals of their own; nothing here calls them.
@pytest.mark.filterwarnings("default")
def test_grpo_is_rewarded_by_the_prm(
    build_text_model: Callable[..., Any], tiny_tokenizer: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from dreamprm.prm import PRM

    build_text_model(seed=1).save_pretrained(tmp_path / "policy")
    tiny_tokenizer.save_pretrained(tmp_path / "policy")
    PRM(build_text_model(seed=2), tiny_tokenizer).save_pretrained(tmp_path / "prm")
    spec = importlib.util.spec_from_file_location("grpo_reward", Path(__file__).parents[3] / "examples/grpo_reward.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    monkeypatch.setenv("WANDB_DISABLED", "true")
    words = [str(tmp_path / "policy"), str(tmp_path / "prm"), "--updates", "1", "--out", str(tmp_path / "out")]
    trainer = module.main([*words, "--tokens", "8"])
    (row,) = [row for row in trainer.state.log_history if "rewards/prm_reward/mean" in row]
    assert 0.0 < row["rewards/prm_reward/mean"] < 1.0
    assert row["reward"] == pytest.approx(row["rewards/prm_reward/mean"])
