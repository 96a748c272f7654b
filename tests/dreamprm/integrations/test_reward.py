"""The reward of a PRM, as TRL and verl call it: the same numbers as the PRM's own, over a server too."""

from __future__ import annotations

import importlib.util
import inspect
import io
from collections.abc import Callable
from pathlib import Path
from typing import Any

import PIL.Image
import pytest
from tests.dreamprm.serve.conftest import serving

from dreamprm.errors import UserError
from dreamprm.integrations.reward import as_reward
from dreamprm.prm import PRM, aggregate

QUESTION, SOLUTION = "What is 3 + 4?", "Step 1: add 3 and 4\nStep 2: so it is 7"
STEPS = ["Step 1: add 3 and 4", "Step 2: so it is 7"]
CLOSE = 1e-5  # fp32 in another batch


@pytest.fixture(scope="module")
def prm(build_internvl: Callable[..., Any], tiny_processor: Any) -> PRM:
    return PRM(build_internvl(seed=7), tiny_processor, aggregation="min").eval()


def _trl(reward: Any, prompts: list[Any], completions: list[Any], **columns: Any) -> list[float]:
    """As trl.GRPOTrainer._calculate_rewards calls it, every column of the data set by its name."""
    ids = [[1, 2]] * len(prompts)
    found = reward(prompts=prompts, completions=completions, completion_ids=ids, trainer_state=None, **columns)
    assert len(found) == len(prompts)
    assert all(isinstance(value, float) for value in found)
    return found


def test_text_and_messages_give_the_prms_own_score(prm: PRM) -> None:
    reward = as_reward(prm)
    want = aggregate(prm.score(QUESTION, None, STEPS), "min")
    turns = [{"role": "system", "content": "Solve."}, {"role": "user", "content": QUESTION}]
    said = [{"role": "assistant", "content": SOLUTION}]
    found = _trl(reward, [QUESTION, turns], [SOLUTION, said], answer=["7", "7"])
    assert found == pytest.approx([want, want], abs=CLOSE)
    assert reward.__name__ == "prm_reward"
    assert not inspect.iscoroutinefunction(reward)


def test_images_from_the_column_or_the_prompt(prm: PRM, make_image: Callable[..., bytes]) -> None:
    reward, picture = as_reward(prm, aggregation="last"), PIL.Image.open(io.BytesIO(make_image(colour=(9, 200, 9))))
    want = prm.score(QUESTION, picture, STEPS)[-1]
    shown = [{"role": "user", "content": [{"type": "image", "image": picture}, {"type": "text", "text": QUESTION}]}]
    assert _trl(reward, [QUESTION], [SOLUTION], images=[[picture]]) == pytest.approx([want], abs=CLOSE)
    assert _trl(reward, [QUESTION], [SOLUTION], image=[picture]) == pytest.approx([want], abs=CLOSE)
    assert _trl(reward, [shown], [SOLUTION]) == pytest.approx([want], abs=CLOSE)
    assert want != pytest.approx(prm.score(QUESTION, None, STEPS)[-1], abs=1e-3)


@pytest.mark.parametrize("far", [False, True])
def test_what_cannot_be_read_is_counted(prm: PRM, far: bool) -> None:
    completions = [SOLUTION, "", " \n", "it is <|im_end|> 7", SOLUTION]
    with serving(prm) as url:
        reward = as_reward(url if far else prm, unreadable=-1.0, aggregation="min")
        found = _trl(reward, [QUESTION] * 5, completions)
        if far:
            reward.reader.close()
    want = aggregate(prm.score(QUESTION, None, STEPS), "min")
    assert found == pytest.approx([want, -1.0, -1.0, -1.0, want], abs=CLOSE)
    assert reward.num_unreadable == 3


def test_a_server_that_is_gone_is_an_error_not_a_reward(prm: PRM) -> None:
    reward = as_reward("http://127.0.0.1:9")
    reward.reader.retries = 0
    with pytest.raises(UserError, match="cannot be reached"):
        _trl(reward, [QUESTION], [SOLUTION])
    reward.reader.close()


def test_verl_calls_the_example(prm: PRM, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    prm.save_pretrained(tmp_path / "prm")
    monkeypatch.setenv("DREAMPRM_REWARD", str(tmp_path / "prm"))
    spec = importlib.util.spec_from_file_location("verl_reward", Path(__file__).parents[3] / "examples/verl_reward.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    info = {"question": QUESTION, "split": "train", "index": 3}
    # As verl.workers.reward_manager calls it: by name, with the sample's extra_info.
    found = module.compute_score(data_source="math", solution_str=SOLUTION, ground_truth="7", extra_info=info)
    assert found == pytest.approx(aggregate(prm.score(QUESTION, None, STEPS), "min"), abs=CLOSE)
    with pytest.raises(KeyError, match="question"):
        module.compute_score(data_source="math", solution_str=SOLUTION, ground_truth="7", extra_info={})


def test_an_unknown_aggregation_is_refused_at_once(prm: PRM) -> None:
    with pytest.raises(ValueError, match="average"):
        as_reward(prm, aggregation="average")
