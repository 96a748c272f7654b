"""`clean to=HOST`: a run's chains in the columns of other trainers, read by TRL's own trainer where it is installed.

What LLaMA-Factory, ms-swift, OpenRLHF and TRL's PRMTrainer make of these files is in benchmarks/reports/ (they pin
versions that do not go with this project's).
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image

from dreamprm.commands.clean import CleanStage, clean
from dreamprm.data.host_rows import HOSTS, PLACEHOLDER, WEIGHT
from dreamprm.data.readers import read
from dreamprm.errors import ConfigError, UserError

ROWS: list[dict[str, Any]] = [
    {"question": "2 and 3 ?", "steps": ["2 and 3", "is 5", "answer 5"], "labels": [1, None, 0.75]},
    {"question": "4 and 4 ?", "steps": ["4 and 4 is 9", "answer 9"], "labels": [0.0, None]},
    {"question": "1 and 1 ?", "steps": ["answer 2"], "labels": [1]},
    {"question": "no labels ?", "steps": ["answer 2"]},
]
WEIGHTS = [1.5, 0.25, 1.0]


@pytest.fixture
def run(tmp_path: Path) -> str:
    return _run(tmp_path, ROWS, WEIGHTS)


def _run(folder: Path, rows: list[dict[str, Any]], weights: list[float]) -> str:
    """The folder of a run that trained on the first of these rows."""
    data = folder / "train.jsonl"
    data.write_text("".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows), encoding="utf-8")
    keys = [record.key for record in read(data)][: len(weights)]
    (folder / "run").mkdir()
    pq.write_table(pa.table({"key": keys, "weight": weights}), folder / "run" / "weights.parquet")
    (folder / "run" / "config.yaml").write_text(f"data: {{kind: files, path: {data}, images: null}}\n")
    return str(folder / "run")


def _written(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]


def _to(host: str, run: str, out: Path, **settings: Any) -> list[dict[str, Any]]:
    return _written(clean(CleanStage(run_dir=run, to=host, out=str(out), **settings)))


def _chat(*turns: str) -> list[dict[str, str]]:
    roles = ("user", "assistant")
    return [{"role": roles[number % 2], "content": text} for number, text in enumerate(turns)]


TURNS = [
    _chat("2 and 3 ?\n\n2 and 3", "+", "is 5\n\nanswer 5", "+"),
    _chat("4 and 4 ?\n\n4 and 4 is 9", "-"),
    _chat("1 and 1 ?\n\nanswer 2", "+"),
]


def test_chats_have_a_turn_for_every_labelled_step(run: str, tmp_path: Path) -> None:
    rows = _to("trl", run, tmp_path / "trl.jsonl")
    assert rows == [{"messages": turns, WEIGHT: weight} for turns, weight in zip(TURNS, WEIGHTS, strict=True)]
    rows = _to("llamafactory", run, tmp_path / "lf" / "chains.jsonl", below=1.0)
    assert rows == [{"messages": TURNS[0]}, {"messages": TURNS[2]}]
    entry = json.loads((tmp_path / "lf" / "dataset_info.json").read_text())["chains"]
    assert entry["file_name"] == "chains.jsonl"
    assert entry["columns"] == {"messages": "messages"}
    rows = _to("swift", run, tmp_path / "swift.jsonl")
    assert [[turn.get("loss_scale") for turn in row["messages"]] for row in rows] == [
        [None, 1.5, None, 1.5], [None, 0.25], [None, 1.0],
    ]  # fmt: skip
    assert _to("swift", run, tmp_path / "cut.jsonl", keep=0.67) == [{"messages": TURNS[0]}, {"messages": TURNS[2]}]


def test_stepwise_files_are_read_back_by_our_own_reader(run: str, tmp_path: Path) -> None:
    rows = _to("trl_stepwise", run, tmp_path / "steps.jsonl")
    assert rows[0] == {
        "prompt": "2 and 3 ?", "completions": ["2 and 3", "is 5\n\nanswer 5"], "labels": [True, True], WEIGHT: 1.5,
    }  # fmt: skip
    back = list(read(tmp_path / "steps.jsonl", "trl_stepwise"))
    assert [record.labels for record in back] == [(1.0, 1.0), (0.0,), (1.0,)]
    assert [record.question for record in back] == [row["question"] for row in ROWS[:3]]


def test_openrlhf_has_a_placeholder_and_a_label_for_every_verdict(run: str, tmp_path: Path) -> None:
    rows = _to("openrlhf", run, tmp_path / "o.jsonl", below=0.0)
    assert rows[0] == {"input": f"2 and 3 ? 2 and 3 {PLACEHOLDER}\nis 5\n\nanswer 5 {PLACEHOLDER}", "value": ["+", "+"]}
    assert all(row["input"].count(PLACEHOLDER) == len(row["value"]) for row in rows)
    assert [row["value"] for row in rows[1:]] == [["-"], ["+"]]


def test_images_go_along(tmp_path: Path) -> None:
    for name in ("a.png", "b.png"):
        Image.new("RGB", (4, 4), "red").save(tmp_path / name)
    rows: list[dict[str, Any]] = [
        {"question": "which is red, <image> or <image>?", "steps": ["both"], "labels": [1],
         "images": ["a.png", "b.png"]},
        {"question": "is it red?", "steps": ["yes"], "labels": [1], "images": ["b.png"]},
        {"question": "none", "steps": ["an <image> tag"], "labels": [1]},
    ]  # fmt: skip
    run = _run(tmp_path, rows, [1.0, 1.0, 1.0])
    paths = [str(tmp_path / name) for name in ("a.png", "b.png")]
    for host in ("llamafactory", "swift"):  # which count the tags: what holds one too many is left out
        found = _to(host, run, tmp_path / host / "x.jsonl", keep=1.0)
        assert [row["images"] for row in found] == [paths, paths[1:]]
        assert found[0]["messages"][0]["content"] == "which is red, <image> or <image>?\n\nboth"
        assert found[1]["messages"][0]["content"] == "<image>is it red?\n\nyes"
    info = json.loads((tmp_path / "llamafactory" / "dataset_info.json").read_text())
    assert info["x"]["columns"] == {"messages": "messages", "images": "images"}
    found = _to("trl", run, tmp_path / "trl.jsonl")
    assert found[0]["messages"][0]["content"] == "which is red, (image 1) or (image 2)?\n\nboth"
    assert [row.get("images") for row in found] == [paths, paths[1:], None]
    with pytest.raises(UserError, match=r"openrlhf: no chain is left.*sees no images; to=swift"):
        _to("openrlhf", _run_again(tmp_path, rows[:1]), tmp_path / "o.jsonl", keep=1.0)
    (tmp_path / "a.png").unlink()
    with pytest.raises(UserError, match=r"an image cannot be read .*a\.png"):
        _to("trl", run, tmp_path / "gone.jsonl")
    assert not (tmp_path / "gone.jsonl").exists()


def _run_again(folder: Path, rows: list[dict[str, Any]]) -> str:
    other = folder / "other"
    other.mkdir()
    for name in ("a.png", "b.png"):
        (other / name).write_bytes((folder / name).read_bytes())
    return _run(other, rows, [1.0] * len(rows))


def test_what_a_host_cannot_read_is_refused_with_the_way_out(run: str, tmp_path: Path) -> None:
    for host in ("llamafactory", "openrlhf"):
        with pytest.raises(ConfigError, match=r"reads no weights.*set below= or keep="):
            _to(host, run, tmp_path / "x.jsonl")
    with pytest.raises(ConfigError, match=r"must end in \.jsonl"):
        _to("trl", run, tmp_path / "x.parquet")
    with pytest.raises(ValueError, match=r"'tlr' is no to; allowed are .*did you mean trl\?"):
        CleanStage(to="tlr")
    with pytest.raises(UserError, match="no chain is left"):
        _to("trl", run, tmp_path / "x.jsonl", below=9.0)
    (tmp_path / "dataset_info.json").write_text('{"x": {"file_name": "other.jsonl"}}')
    with pytest.raises(ConfigError, match=r"has a data set x of another file"):
        _to("llamafactory", run, tmp_path / "x.jsonl", keep=1.0)
    assert not (tmp_path / "x.jsonl").exists()
    assert set(HOSTS) == {"trl", "trl_stepwise", "llamafactory", "swift", "openrlhf"}


# TRL announces removals of what it imports itself; nothing here calls it.
@pytest.mark.filterwarnings("default")
def test_trls_own_trainer_takes_the_loss_of_the_verdicts_alone(run: str, tmp_path: Path) -> None:
    pytest.importorskip("trl", reason="needs the extra rl")
    from datasets import load_dataset
    from tokenizers import Tokenizer, models, pre_tokenizers
    from transformers import PreTrainedTokenizerFast, Qwen2Config, Qwen2ForCausalLM
    from trl import SFTConfig, SFTTrainer

    clean(CleanStage(run_dir=run, to="trl", out=str(tmp_path / "trl.jsonl")))
    data: Any = load_dataset("json", data_files=str(tmp_path / "trl.jsonl"), split="train", cache_dir=str(tmp_path))
    assert data[WEIGHT] == WEIGHTS
    words = {word for turns in TURNS for turn in turns for word in turn["content"].split()}
    vocabulary = {word: number for number, word in enumerate(["<pad>", "<end>", *sorted(words)])}
    core = Tokenizer(models.WordLevel(vocabulary, unk_token="<pad>"))
    core.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=core, pad_token="<pad>", eos_token="<end>")
    tokenizer.chat_template = (
        "{% for m in messages %}{% if m.role == 'assistant' %}{% generation %}{{ m.content }}{% endgeneration %}"
        "{% else %}{{ m.content }}{% endif %}{{ ' ' }}{% endfor %}"
    )
    config = Qwen2Config(
        vocab_size=len(vocabulary), hidden_size=8, intermediate_size=8, num_hidden_layers=1, num_attention_heads=1,
        num_key_value_heads=1, max_position_embeddings=32, pad_token_id=0, bos_token_id=None, eos_token_id=1,
    )  # fmt: skip
    trainer = SFTTrainer(
        Qwen2ForCausalLM(config),
        SFTConfig(
            str(tmp_path / "out"), assistant_only_loss=True, per_device_train_batch_size=3, report_to="none",
            use_cpu=True, bf16=False, gradient_checkpointing=False, max_steps=1, save_strategy="no", disable_tqdm=True,
        ),
        train_dataset=data,
        processing_class=tokenizer,
    )  # fmt: skip
    (batch,) = trainer.get_train_dataloader()
    kept = sorted(tokenizer.decode(row[row >= 0]) for row in batch["labels"])
    assert kept == ["+", "+ +", "-"]
    trainer.train()
