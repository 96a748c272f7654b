"""A PRM as a folder that vLLM serves unchanged, with the command that does it.

vLLM turns a language model into a scorer of every token: `--runner pooling --convert classify`, task `token_classify`.
A generative head is w_right - w_wrong, which it makes of the language model's head by `classifier_from_token` and
`from_2_way_softmax`; the sigmoid of that is P(right) over the two label tokens, exactly. A linear head, and DreamPRM's
linear head over the vocabulary, which is one too (<w, W h> + b = <Wᵀw, h> + b), become a token classifier of one class.
All positions come back; the client picks the judged ones, so that no version's own idea of steps matters.
"""

from __future__ import annotations

import json
import shlex
from pathlib import Path
from typing import Any

import torch
from torch import nn

from dreamprm.choices import HeadKind
from dreamprm.errors import UserError
from dreamprm.prm import PRM
from dreamprm.prm.heads import LinearHead, VocabularyHead
from dreamprm.prm.processor import load_processor
from dreamprm.prm.prompt import tokenizer_of
from dreamprm.prm.storage import plain_model
from dreamprm.progress import say

__all__ = ["VLLM_FAMILIES", "export_vllm", "serve_command"]

VLLM_FAMILIES = {
    "gemma", "gemma2", "gemma3", "gemma3_text", "glm", "granite", "idefics3", "internvl", "llama", "llava",
    "llava_onevision", "mistral", "olmo", "olmo2", "phi3", "qwen2", "qwen2_5_vl", "qwen2_vl", "qwen3", "qwen3_moe",
    "qwen3_vl", "smolvlm",
}  # fmt: skip
"""model_type of the families that vLLM 0.32 lists as models that `--convert classify` turns into classifiers. Served
and compared with local scores were those of `TRIED` alone; of the others the folder follows the same rules."""

TRIED = {"qwen2", "internvl"}
"""model_type of the families whose exported folders vLLM served here, with scores equal to local ones: qwen2 with every
head, internvl with images and a generative head (benchmarks/reports)."""

_GENERATES = ("ForCausalLM", "ForConditionalGeneration", "ForTokenClassification")


def export_vllm(prm: PRM, folder: Path, final: Path | None = None) -> str:
    """Write the folder and give the command that serves it. final: where the folder will lie, if not here.

    The folder is an ordinary PRM folder too: `PRM.from_pretrained(folder)` scores as `prm` does.
    Raises UserError, naming what cannot be exported.
    """
    config = prm.transformer.config
    if config.model_type not in VLLM_FAMILIES:
        known = ", ".join(sorted(VLLM_FAMILIES))
        raise _cannot(f"vLLM does not convert models of type {config.model_type!r}, it converts {known}")
    if prm.kind is HeadKind.generative:
        if prm.transformer.get_output_embeddings().bias is not None:
            raise _cannot("the language model's head has a bias, which vLLM leaves out")
        prm.save_pretrained(folder)
    else:
        as_classifier(prm).save_pretrained(folder)
    if config.model_type == "internvl":
        _complete_internvl(folder, config.image_seq_length)
    _require_same_tokens(prm, folder)
    final = final or folder
    command = serve_command(folder, final)
    if config.model_type not in TRIED:
        say(
            f"note: vLLM lists models of type {config.model_type!r} as convertible; none has been served yet: compare "
            "a few scores of dreamprm score endpoint=… with local ones first"
        )
    (folder / "README.md").write_text(_card(prm, command, final), encoding="utf-8")
    return command


def serve_command(folder: Path, final: Path | None = None) -> str:
    """The command by which vLLM serves an exported folder. final: where the folder will lie, if not here."""
    return shlex.join(["vllm", "serve", str(final or folder), *serve_options(folder)])


def serve_options(folder: Path) -> list[str]:
    """What follows `vllm serve FOLDER`."""
    config = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    settings = json.loads((folder / "prm.json").read_text(encoding="utf-8"))
    architecture = config["architectures"][0]
    for suffix in _GENERATES:
        architecture = architecture.removesuffix(suffix)
    overrides: dict[str, Any] = {"architectures": [f"{architecture}ForSequenceClassification"]}
    if settings["head"] == HeadKind.generative:
        right, wrong = _vocabulary_names(folder, settings["label_tokens"])
        overrides |= {"classifier_from_token": [wrong, right], "method": "from_2_way_softmax"}
    dtype = config.get("dtype") or config.get("torch_dtype") or "float32"
    return [
        "--runner", "pooling", "--convert", "classify", "--dtype", dtype,
        "--pooler-config", json.dumps({"task": "token_classify"}),
        "--hf-overrides", json.dumps(overrides, ensure_ascii=False),
    ]  # fmt: skip


def as_classifier(prm: PRM) -> PRM:
    """The same scores from a token classifier of one class; a PRM that is one already is given back.

    Raises UserError where transformers has no such class.
    """
    from transformers import AutoModelForTokenClassification

    if prm.kind is HeadKind.token_classification:
        return prm
    config = prm.transformer.config
    if type(config) not in AutoModelForTokenClassification._model_mapping:
        raise _cannot(
            f"transformers has no token classifier of type {config.model_type!r} that could hold a {prm.kind} head"
        )
    weight, bias = linear_of(prm.head, prm.transformer)
    kept = {name: value for name, value in config.to_dict().items() if name not in ("id2label", "label2id")}
    changed = type(config)(**kept | {"num_labels": 1, "architectures": None})
    model: Any = AutoModelForTokenClassification.from_config(changed, dtype=torch.float32)
    if not isinstance(getattr(model, "score", None), nn.Linear) or model.score.bias is None:
        raise _cannot(f"{type(model).__name__} has not the one linear layer that a {prm.kind} head needs")
    plain = plain_model(prm)
    model.base_model.load_state_dict(plain.base_model.state_dict())
    with torch.no_grad():
        model.score.weight.copy_(weight[None])
        model.score.bias.copy_(bias)
    model.to(next(prm.model.parameters()).dtype)
    settings: dict[str, Any] = {"prompt": prm.prompt, "aggregation": prm.aggregation, "collation": prm.collation}
    return PRM(model.eval(), prm.processor, HeadKind.token_classification.value, **settings)


def linear_of(head: nn.Module | None, transformer: Any) -> tuple[torch.Tensor, torch.Tensor]:
    """w (H,) and b (1,) with log-odds = <w, h> + b. Of a vocabulary head: w = Wᵀv, b = <v, c> + b_v."""
    if isinstance(head, LinearHead):
        return head.score.weight[0].detach(), head.score.bias.detach()
    assert isinstance(head, VocabularyHead)
    output = transformer.get_output_embeddings()
    row, bias = head.score.weight[0].detach(), head.score.bias.detach()
    weight = output.weight.detach().to(row.dtype).T @ row
    return weight, bias if output.bias is None else bias + output.bias.detach().to(row.dtype) @ row


def _complete_internvl(folder: Path, num_tokens: int) -> None:
    """What vLLM's InternVL reads besides: InternVL's processor with the tokens of an image (it takes 256 else), and a
    video processor, which a PRM that was loaded without torchvision has lost."""
    path = folder / "processor_config.json"
    about = json.loads(path.read_text(encoding="utf-8"))
    about |= {"processor_class": "InternVLProcessor", "image_seq_length": num_tokens}
    path.write_text(json.dumps(about, indent=2) + "\n", encoding="utf-8")
    video = folder / "video_preprocessor_config.json"
    if not video.exists() and "video_processor" not in about:
        size = about["image_processor"]["size"]
        video.write_text(json.dumps({"video_processor_type": "InternVLVideoProcessor", "size": size}), encoding="utf-8")


def _require_same_tokens(prm: PRM, folder: Path) -> None:
    # transformers gives some model types a tokenizer class of their own, which cuts the text of another differently.
    probe = "Step 12: 3.5 + 40 = 43.5, don't you think?\n\n  So x² = -7."
    ours, theirs = (tokenizer_of(each)(probe)["input_ids"] for each in (prm.processor, load_processor(folder)))
    if ours != theirs:
        raise _cannot("its tokenizer, read again from a folder of this model type, cuts text into other tokens")


def _vocabulary_names(folder: Path, ids: list[int]) -> list[str]:
    return tokenizer_of(load_processor(folder)).convert_ids_to_tokens(ids)


def _cannot(reason: str) -> UserError:
    return UserError(f"cannot be exported to vLLM: {reason}; dreamprm serve prm=… serves this PRM")


def _card(prm: PRM, command: str, final: Path) -> str:
    """The model card: how it is served, how it is asked, and what the numbers mean."""
    return f"""\
# {final.name}

A process reward model: `{type(prm.transformer).__name__}`, head `{prm.kind}`. Exported by `dreamprm export to=vllm`.

## Serve

```bash
{command}
```

## Ask

```bash
dreamprm score endpoint=http://localhost:8000 prm={final} data.path=chains.jsonl
```

The client makes the token ids (tokenizers then cannot differ), asks `POST /pooling` with `"task": "token_classify"` and
picks the positions that judge a step. By hand: in layout `{prm.prompt.layout}` a step is judged at \
{"the token before its placeholder" if prm.prompt.layout == "turns" else "the last token of its separator"}; \
the number there is the probability that the step is right. Chains are scored by `{prm.aggregation}` of their steps.

The folder is an ordinary PRM folder too: `dreamprm.PRM.from_pretrained("{final}")`.
"""
