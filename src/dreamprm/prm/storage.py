"""A PRM as a folder: an ordinary transformers model with its processor, and `prm.json` beside it.

One file because what is written and what is read back are one format, and checked against each other.
"""

from __future__ import annotations

import contextlib
import copy
import dataclasses
import json
import pickle
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import nn

from dreamprm.choices import HeadKind
from dreamprm.errors import is_out_of_memory
from dreamprm.files import checksum, readable_as_umask_says
from dreamprm.prm.heads import LabelHead
from dreamprm.prm.hub import hub_answers, hub_options, is_path
from dreamprm.prm.processor import load_processor
from dreamprm.prm.prompt import Prompt, tokenizer_of

if TYPE_CHECKING:
    from dreamprm.prm.collate import Collator
    from dreamprm.prm.model import PRM

__all__ = ["PRMLoadError", "load", "load_collator", "plain_model", "save"]

SETTINGS, HEAD = "prm.json", "prm_head.safetensors"
_FOR_ALL = ("revision", "trust_remote_code", "local_files_only")  # options of every file that is fetched


class PRMLoadError(OSError):
    """A model that cannot be loaded; one line that says what was asked for and what to do."""


def save(prm: PRM, folder: Path) -> None:
    """Model (safetensors), tokenizer, processor and `prm.json`; a discriminative head of our own beside them.

    A generative head is written into the rows of the language model's head, so that the softmax over the two label
    tokens' logits, read by transformers alone at the judged tokens, is this PRM's score. A head that is tied to the
    embedding is untied in the folder (tie_word_embeddings=False); the model in memory stays as it is. LoRA adapters
    are merged into a copy.
    """
    folder.mkdir(parents=True, exist_ok=True)
    model = plain_model(prm)
    rows = contextlib.nullcontext()
    if isinstance(prm.head, LabelHead):
        assert prm.labels is not None
        rows = _with_label_rows(model, prm.head, list(prm.labels))
    with rows:
        model.save_pretrained(folder)
    if prm.head is not None and not isinstance(prm.head, LabelHead):
        save_file({name: value.contiguous() for name, value in prm.head.state_dict().items()}, folder / HEAD)
    prm.processor.save_pretrained(folder)
    settings = {
        "head": prm.kind.value,
        "aggregation": prm.aggregation,
        "right_class": prm.right_class,
        "prompt": dataclasses.asdict(prm.prompt),
        "collation": prm.collation,
        "label_tokens": list(prm.labels) if prm.labels else None,
        "probe": _probe(prm.processor),
        "checksums": {file.name: checksum(file) for file in sorted(folder.glob("*.safetensors"))},
    }
    (folder / SETTINGS).write_text(json.dumps(settings, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")
    for file in folder.iterdir():
        if file.is_file():
            readable_as_umask_says(file)


def _probe(processor: Any) -> list[int]:
    # transformers gives some model types a tokenizer class of their own. Another family's, read again from the folder,
    # then cuts text differently, and every score would change in silence.
    text = "Step 12: 3.5 + 40 = 43.5, don't you think?\n\n  So x² = -7."
    return list(tokenizer_of(processor)(text)["input_ids"])


def plain_model(prm: PRM) -> Any:
    """The transformers model itself; with peft's adapters, a copy with the adapters merged into full-width weights."""
    model: Any = prm.model
    if getattr(model, "_hf_peft_config_loaded", False):
        raise ValueError("adapters added by model.add_adapter cannot be saved; wrap the model by peft.get_peft_model")
    if prm.transformer is model:
        return model
    copied = copy.deepcopy(model)
    return _dequantized(copied) if getattr(prm.transformer, "is_quantized", False) else copied.merge_and_unload()


@torch.no_grad()
def _dequantized(model: Any) -> Any:
    """A quantized base made full-width again, plus the low-rank products of its adapters.

    peft's own merge would quantize the sum, and the scores would no longer be those of the model that was trained.
    """
    from peft.tuners.lora import LoraLayer

    layers: dict[str, Any] = {name: m for name, m in model.get_base_model().named_modules() if isinstance(m, LoraLayer)}
    if any(getattr(layer, "lora_variant", None) for layer in layers.values()):
        raise ValueError("variants of LoRA (DoRA …) on a quantized base cannot be merged exactly; use plain LoRA")
    products = {
        name: [layer.get_delta_weight(adapter) for adapter in layer.active_adapters if adapter in layer.lora_A]
        for name, layer in layers.items()
    }
    plain = model.unload().dequantize()
    for name, parts in products.items():
        weight = plain.get_submodule(name).weight
        for part in parts:
            weight += part.to(weight.dtype)
    return plain


@contextlib.contextmanager
def _with_label_rows(model: Any, head: LabelHead, tokens: list[int]) -> Iterator[None]:
    output = model.get_output_embeddings()
    configs = [model.config, model.config.get_text_config()]
    before = (output.weight, output.bias, [getattr(c, "tie_word_embeddings", None) for c in configs])
    tied_keys = model.all_tied_weights_keys
    try:
        with torch.no_grad():
            weight = output.weight.detach().clone()
            weight[tokens] = head.rows.weight.to(weight.dtype)
            output.weight = nn.Parameter(weight, requires_grad=False)
            if output.bias is not None:
                bias = output.bias.detach().clone()
                bias[tokens] = head.rows.bias.to(bias.dtype)
                output.bias = nn.Parameter(bias, requires_grad=False)
        for config in configs:
            config.tie_word_embeddings = False
        model.all_tied_weights_keys = {}
        yield
    finally:
        output.weight, output.bias = before[0], before[1]
        for config, tied in zip(configs, before[2]):
            config.tie_word_embeddings = tied
        model.all_tied_weights_keys = tied_keys


def load(
    path: str | Path,
    *,
    head: str | None = None,
    prompt: Prompt | None = None,
    aggregation: str | None = None,
    collation: dict[str, Any] | None = None,
    right_class: int | None = None,
    dtype: torch.dtype | str = torch.float32,
    **options: Any,
) -> PRM:
    """A PRM from a folder that `save` wrote, or from any model folder or hub name.

    Settings that are not given come from the folder's `prm.json`, else from the model: a token classifier keeps its
    own head, any other model becomes generative. options go to transformers' from_pretrained (revision,
    quantization_config, device_map …). Code from the folder is never run.
    Raises PRMLoadError, one line, where the model is not there or cannot be read.
    """
    from dreamprm.prm.model import PRM

    folder = Path(path)
    try:
        options = {"trust_remote_code": False, **hub_options(path), **options}
        stored = _stored(folder)
        _require_whole(folder, stored.get("checksums", {}))
        model, is_classifier = _load_model(path, head, dtype, options, own=bool(stored))
        processor = load_processor(path, **{name: options[name] for name in _FOR_ALL if name in options})
        if stored.get("probe", _probe(processor)) != _probe(processor):
            raise ValueError(
                "its tokenizer, read from the folder, cuts text into other tokens than the one it was saved with; save "
                "the PRM with the tokenizer of its own model type"
            )
        fallback = HeadKind.token_classification if is_classifier else HeadKind.generative
        prm = PRM(
            model,
            processor,
            head or stored.get("head", fallback),
            prompt=prompt or Prompt(**stored.get("prompt", {})),
            aggregation=aggregation or stored.get("aggregation", "mean"),
            collation=stored.get("collation", {}) if collation is None else collation,
            right_class=stored.get("right_class", 1) if right_class is None else right_class,
        )
        if (folder / HEAD).is_file() and stored.get("head") == prm.kind and prm.head is not None:
            prm.head.load_state_dict(load_file(folder / HEAD))
    except torch.OutOfMemoryError:
        raise
    except pickle.UnpicklingError as error:
        refused = ValueError("its weights are a pickle of more than tensors, never run; get them as safetensors")
        raise PRMLoadError(_one_line(path, refused)) from error
    except (OSError, ValueError, ImportError, TypeError, KeyError, RuntimeError, SafetensorError) as error:
        if is_out_of_memory(error):
            raise
        raise PRMLoadError(_one_line(path, error)) from error
    _require_finite(prm, path)
    return prm


def load_collator(path: str | Path) -> tuple[Collator, int, str]:
    """How a PRM folder is read, without its weights: its collator, its class that means right, its aggregation.

    Raises PRMLoadError.
    """
    from dreamprm.prm.collate import Collator

    try:
        stored = _stored(Path(path))
        processor = load_processor(path, **hub_options(path))
        collator = Collator(processor, Prompt(**stored.get("prompt", {})), **stored.get("collation", {}))
    except (OSError, ValueError, ImportError, TypeError, KeyError) as error:
        raise PRMLoadError(_one_line(path, error)) from error
    return collator, stored.get("right_class", 1), stored.get("aggregation", "mean")


def _stored(folder: Path) -> dict[str, Any]:
    """prm.json of a folder, or nothing. Raises ValueError where it is not what `save` writes."""
    if not (folder / SETTINGS).is_file():
        return {}
    try:
        stored = json.loads((folder / SETTINGS).read_text(encoding="utf-8"))
        known = {"head", "aggregation", "right_class", "prompt", "collation", "label_tokens", "probe"}
        known |= {"checksums"}
        if not isinstance(stored, dict) or not set(stored) <= known:
            raise ValueError(f"it must be an object with {', '.join(sorted(known))}")
        if not all(isinstance(stored.get(name, {}), dict) for name in ("prompt", "collation", "checksums")):
            raise ValueError("prompt, collation and checksums must be objects")
    except (ValueError, RecursionError) as error:
        raise ValueError(f"{SETTINGS} is damaged: {error}") from error
    return stored


def _require_whole(folder: Path, checksums: dict[str, Any]) -> None:
    for name, wanted in checksums.items():
        if Path(name).name == name and (folder / name).is_file() and checksum(folder / name) != wanted:
            raise ValueError(
                f"{name} is not what was saved, its checksum differs; get the folder again from where it came from, or "
                f"remove checksums from {SETTINGS} where you changed it yourself"
            )


def _require_finite(prm: PRM, path: str | Path) -> None:
    """Raises PRMLoadError naming the tensors that hold NaN or an infinity."""
    # A sum is finite wherever no value is NaN or infinite, but for an overflow: only then each value is looked at.
    bad = [
        name
        for name, value in prm.named_parameters()
        if value.is_floating_point()
        and not value.is_meta
        and not bool(value.detach().sum().isfinite())
        and not bool(value.detach().isfinite().all())
    ]
    if bad:
        raise PRMLoadError(
            f"cannot use the PRM in {path}: {len(bad)} of its tensors hold values that are not finite, e.g. {bad[0]}; "
            "take the folder of a run that did not diverge"
        )


def _load_model(
    path: str | Path, head: str | None, dtype: Any, options: dict[str, Any], *, own: bool
) -> tuple[Any, bool]:
    """The model, and whether it is a token classifier. own: a folder that `save` wrote, which lacks no tensor.

    Raises ValueError where the files lack tensors: of any other model only its head may be new.
    """
    from transformers import (
        AutoConfig,
        AutoModelForCausalLM,
        AutoModelForImageTextToText,
        AutoModelForTokenClassification,
    )

    known = {name: options[name] for name in _FOR_ALL if name in options}
    config = AutoConfig.from_pretrained(path, **known)
    architectures = config.architectures or []
    is_classifier = any(name.endswith("ForTokenClassification") for name in architectures)
    if head == HeadKind.token_classification or (head is None and is_classifier):
        loader = AutoModelForTokenClassification
    elif getattr(config, "vision_config", None) is not None:
        loader = AutoModelForImageTextToText
    else:
        loader = AutoModelForCausalLM
    with _our_words_only():
        loaded: Any = loader.from_pretrained(path, dtype=dtype, output_loading_info=True, **options)
    model, found = loaded
    lacking = sorted(key for key in found["missing_keys"] if own or key.startswith(f"{model.base_model_prefix}."))
    if lacking:
        raise ValueError(
            f"its files lack {len(lacking)} tensors, e.g. {lacking[0]}, which would be random; get the whole model"
        )
    return model, is_classifier


@contextlib.contextmanager
def _our_words_only() -> Iterator[None]:
    """Without transformers' table of what the files lack: `_load_model` says it."""
    from transformers.utils import logging

    before = logging.get_verbosity()
    logging.set_verbosity_error()
    try:
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", "Detected pickle protocol")  # what follows it is an error of ours
            yield
    finally:
        logging.set_verbosity(before)


def _one_line(path: str | Path, error: Exception) -> str:
    reason = " ".join(str(error).split())
    if Path(path).is_dir():
        return f"cannot load a PRM from the folder {path}: {reason[:300]}"
    if is_path(path) or not hub_answers():
        return f"cannot load a PRM from {str(path)!r}: {reason[:300]}"
    return (
        f"cannot load a PRM from {str(path)!r}: it is not a local folder, and the hub did not give it; "
        f"check the name and the network, or give a folder ({reason[:160]})"
    )
