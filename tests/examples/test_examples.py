"""The examples run, at small sizes, and show what they say they show."""

import importlib.util
import json
import sys
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType

import pyarrow.parquet as pq
import pytest
import torch
from sklearn.metrics import roc_auc_score

EXAMPLES = Path(__file__).parents[2] / "examples"


@pytest.fixture
def example(request: pytest.FixtureRequest) -> Iterator[ModuleType]:
    name = request.param
    spec = importlib.util.spec_from_file_location(f"example_{name}", EXAMPLES / f"{name}.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    sys.path.insert(0, str(EXAMPLES))  # as `python examples/NAME.py` has it
    spec.loader.exec_module(module)
    yield module
    sys.path.remove(str(EXAMPLES))
    del sys.modules[spec.name]


@pytest.mark.parametrize("example", ["hyper_cleaning_digits"], indirect=True)
def test_hyper_cleaning_finds_the_wrong_labels(example: ModuleType) -> None:
    (row,) = example.main(["--seeds", "1", "--updates", "40", "--train", "500", "--meta", "300"])
    # The promise for the full size is .95 and .01; a quarter of the work is held to a little less.
    assert row["auc"] >= 0.93
    assert row["learned"] >= row["clean_half"] - 0.03
    assert row["learned"] >= row["all"] + 0.03


@pytest.mark.parametrize("example", ["tune_optimizer"], indirect=True)
def test_tuning_lowers_the_validation_loss(example: ModuleType) -> None:
    rows = example.main(["--updates", "8", "--steps", "20", "--hidden", "8"])
    assert rows[-1]["validation"] < rows[0]["validation"] - 0.01
    assert rows[-1]["lr"] > rows[0]["lr"]


@pytest.mark.parametrize("example", ["maml_sinusoid"], indirect=True)
def test_maml_equals_the_manual_unroll_and_learns(example: ModuleType) -> None:
    found = example.main(["--updates", "60", "--tasks", "5"])
    assert found["relative_error"] < 1e-10
    assert found["after"] < 0.8 * found["before"]


@pytest.mark.parametrize("example", ["distill_digits"], indirect=True)
def test_distilled_images_teach_better_than_real_ones(example: ModuleType) -> None:
    found = example.main(["--updates", "15", "--steps", "5"])
    assert found["last"] > found["first"] + 0.05


@pytest.mark.parametrize("example", ["reweighting_trainer"], indirect=True)
def test_weights_of_the_hosts_trainer_find_planted_noise(example: ModuleType, tmp_path: Path) -> None:
    assert example.main(output_dir=str(tmp_path)) >= 0.9


@pytest.mark.parametrize("example", ["accelerate_loop"], indirect=True)
def test_weights_in_accelerates_loop_find_planted_noise(example: ModuleType) -> None:
    assert example.main() >= 0.9


# Lightning and TRL announce removals of what they import; nothing here calls it.
@pytest.mark.filterwarnings("default")
@pytest.mark.parametrize("example", ["lightning_module"], indirect=True)
def test_weights_in_lightning_find_planted_noise(example: ModuleType) -> None:
    assert example.main() >= 0.9


@pytest.mark.filterwarnings("default")
@pytest.mark.parametrize("example", ["sft_trainer"], indirect=True)
def test_weights_in_sft_trainer_find_poisoned_answers(example: ModuleType, tmp_path: Path) -> None:
    # .91 after the example's 30 epochs, of which these are the first 10.
    assert example.main(epochs=10, output_dir=str(tmp_path)) >= 0.8


@pytest.mark.filterwarnings("default")
@pytest.mark.parametrize("example", ["dpo_trainer"], indirect=True)
def test_weights_in_dpo_trainer_find_exchanged_pairs(example: ModuleType, tmp_path: Path) -> None:
    # .917 after the example's 30 epochs on seed 100, of which these are the first 8.
    assert example.main(epochs=8, output_dir=str(tmp_path))[0] >= 0.7


@pytest.mark.parametrize(
    ("example", "small", "auc"),
    [
        # The full sizes are in benchmarks/reports/2026-11-26-worked-examples.md; these take a few seconds each.
        ("noisy_digits", {"num_train": 300, "epochs": 30}, 0.85),
        ("noisy_text", {"num_train": 600, "epochs": 10}, 0.75),
        ("poisoned_sft", {"num_train": 300, "epochs": 12}, 0.7),
    ],
    indirect=["example"],
)
def test_worked_examples_rate_wrong_rows_lower(
    example: ModuleType, small: dict[str, float], auc: float, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    problem = example.problem(7, **small)
    texts = [[str(row) for row in rows] for rows in (problem.train, problem.trusted, problem.test)]
    assert not set(texts[1]) & set(texts[2])
    import rivals  # pyright: ignore[reportMissingImports]

    table = rivals.Table(len(problem.train))
    rivals.fit(problem, problem.train, 7, table)
    weights = table({"index": torch.arange(len(problem.train))}).tolist()
    assert roc_auc_score([not bad for bad in problem.bad], weights) >= auc
    rivals.write(tmp_path, problem.raw, weights, [2, 0])
    assert pq.read_table(tmp_path / "weights.parquet")["weight"].to_pylist() == pytest.approx(weights)
    lines = (tmp_path / "cleaned.jsonl").read_text(encoding="utf-8").splitlines()
    assert [json.loads(line) for line in lines] == [problem.raw[2], problem.raw[0]]
