"""A folder for vLLM: scores as before, by the numbers that vLLM makes of it, and the command in its card.

vLLM itself is asked by benchmarks/serving; here its conversion is done by hand from the written tensors.
"""

from __future__ import annotations

import json
import shlex
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from dreamprm.commands.export import ExportStage, export
from dreamprm.data.record import Record
from dreamprm.errors import ConfigError, UserError
from dreamprm.prm import PRM
from dreamprm.serve.vllm_folder import export_vllm

CLOSE = 1e-5  # fp32; a folded head sums in another order


def _converted(folder: Path, ids: list[int]) -> list[float]:
    """The sigmoid of the score layer that vLLM builds: adapters.py of 0.32, `from_2_way_softmax` or `score.*`."""
    from transformers import AutoModel

    command = shlex.split(
        next(line for line in (folder / "README.md").read_text().splitlines() if "vllm serve" in line)
    )
    overrides = json.loads(command[command.index("--hf-overrides") + 1])
    tensors = load_file(folder / "model.safetensors")
    body = AutoModel.from_pretrained(folder, dtype=torch.float32).eval()
    hidden = body(torch.tensor([ids])).last_hidden_state[0]
    assert overrides["architectures"][0].endswith("ForSequenceClassification")
    if "method" in overrides:
        from transformers import AutoTokenizer

        wrong, right = AutoTokenizer.from_pretrained(folder).convert_tokens_to_ids(overrides["classifier_from_token"])
        weight = tensors["lm_head.weight"][right] - tensors["lm_head.weight"][wrong]
        return (hidden @ weight).sigmoid().tolist()
    logits = hidden @ tensors["score.weight"].T + tensors["score.bias"]
    return (logits.sigmoid() if logits.shape[1] == 1 else logits.softmax(-1)[:, 1:])[:, 0].tolist()


@pytest.mark.parametrize(
    ("head", "num_labels"),
    [("generative", None), ("linear", None), ("vocabulary", None), ("token_classification", 1),
     ("token_classification", 2)],
)  # fmt: skip
@torch.no_grad()
def test_vllms_conversion_gives_our_scores(
    head: str,
    num_labels: int | None,
    build_prm: Callable[..., PRM],
    make_record: Callable[..., Record],
    tmp_path: Path,
) -> None:
    prm, record = build_prm(head, num_labels), make_record()
    want = prm.score_records([record])[0]
    export_vllm(prm, tmp_path / "out")
    item = prm.collator().encode(record)
    every = _converted(tmp_path / "out", item.sequences["input_ids"].tolist())
    assert [every[place] for place in item.positions] == pytest.approx(want, abs=CLOSE)
    again = PRM.from_pretrained(tmp_path / "out")
    assert again.score_records([record])[0] == pytest.approx(want, abs=CLOSE)
    assert again.aggregation == prm.aggregation


# peft asks transformers by a name that it will leave behind.
@pytest.mark.filterwarnings("ignore:`is_gradient_checkpointing`:FutureWarning")
def test_adapters_are_merged(build_prm: Callable[..., PRM], make_record: Callable[..., Record], tmp_path: Path) -> None:
    from peft import LoraConfig, get_peft_model

    bare, record = build_prm("linear"), make_record()
    before = bare.score_records([record])[0]
    model = get_peft_model(bare.model, LoraConfig(target_modules=["q_proj", "v_proj"], init_lora_weights=False))
    prm = PRM(model, bare.processor, "linear").eval()
    prm.head.load_state_dict(bare.head.state_dict())
    export_vllm(prm, tmp_path / "out")
    want = prm.score_records([record])[0]
    assert want != pytest.approx(before, abs=1e-3)
    assert PRM.from_pretrained(tmp_path / "out").score_records([record])[0] == pytest.approx(want, abs=CLOSE)


def test_what_vllm_cannot_serve_is_named(
    build_prm: Callable[..., PRM], build_internvl: Callable[..., Any], tiny_processor: Any, tmp_path: Path
) -> None:
    with pytest.raises(UserError, match=r"internvl.*linear head.*dreamprm serve"):
        export_vllm(PRM(build_internvl(), tiny_processor, "linear"), tmp_path / "a")
    prm = build_prm()
    prm.transformer.config.model_type = "mamba"
    with pytest.raises(UserError, match=r"'mamba'.*qwen2"):
        export_vllm(prm, tmp_path / "b")
    prm.transformer.config.model_type = "qwen2"
    prm.transformer.lm_head.bias = torch.nn.Parameter(torch.zeros(prm.transformer.config.vocab_size))
    with pytest.raises(UserError, match="bias"):
        export_vllm(prm, tmp_path / "c")


def test_the_command_writes_a_whole_folder_once(
    internvl_prm: PRM, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    internvl_prm.save_pretrained(tmp_path / "prm")
    settings = ExportStage(prm=str(tmp_path / "prm"), out=str(tmp_path / "out"))
    out = export(settings)
    shown = capsys.readouterr().out.splitlines()[-1]
    assert shown in (out / "README.md").read_text()
    words = shlex.split(shown)
    assert words[:3] == ["vllm", "serve", str(out)]
    assert json.loads(words[words.index("--hf-overrides") + 1]) == {
        "architectures": ["InternVLForSequenceClassification"],
        "classifier_from_token": ["-", "+"],
        "method": "from_2_way_softmax",
    }
    with pytest.raises(ConfigError, match="is there already"):
        export(settings)
    with pytest.raises(ValueError, match="to"):
        ExportStage(to="tgi")
