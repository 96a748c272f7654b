"""The card says what the results say, and nothing in it can end its table or its header."""

from pathlib import Path

from huggingface_hub import ModelCard

from dreamprm.report.model_card import CardFacts, write_model_card

FACTS = CardFacts(
    base="OpenGVLab/InternVL3-1B", model="InternVL3-1B", architecture="InternVLForConditionalGeneration",
    head="generative", layout="turns", images=True, data="file: train.jsonl", meta="file: meta.jsonl",
    weigher="instance_net", aggregation="mean",
)  # fmt: skip
POINT = {"value": 0.5, "low": 0.25, "high": 0.75, "n": 40}
RESULTS = {
    "experiment": "a | <b>\n---", "seed": 3, "verdict": "The meta set gave a signal.",
    "best_of_n": {"policy": {"1": POINT}, "prm": {"1": POINT, "8": {**POINT, "value": 0.625}}},
    "steps": {"auc": {**POINT, "value": 0.875}}, "meta": {},
}  # fmt: skip


def test_the_card_is_one_that_the_hub_reads(tmp_path: Path) -> None:
    folder = tmp_path / "prm"
    folder.mkdir()
    card = ModelCard.load(write_model_card(folder, FACTS, RESULTS))
    assert card.data.base_model == "OpenGVLab/InternVL3-1B"
    assert {"arxiv:2505.20241", "arxiv:2509.05542", "process-reward-model"} <= set(card.data.tags or [])
    assert "# a / &lt;b> ---, seed 3" in card.text
    assert "| PRM, best of N (8 candidates) | 0.625 [0.250, 0.750] |" in card.text
    assert "| AUC of steps | 0.875 [0.250, 0.750] |" in card.text
    assert "On 40 test questions" in card.text
    assert str(tmp_path) not in card.text


def test_a_run_without_a_test_set_says_so(tmp_path: Path) -> None:
    results = RESULTS | {"best_of_n": {}, "steps": {}}
    facts = CardFacts(**(vars(FACTS) | {"base": None, "images": False}))
    card = ModelCard.load(write_model_card(tmp_path, facts, results))
    assert "There was no test set." in card.text
    assert card.data.base_model is None
    assert "with its images" not in card.text
