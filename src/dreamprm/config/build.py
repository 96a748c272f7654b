"""Settings become objects: device, PRM, weigher, Lookahead."""

from __future__ import annotations

import importlib.util
import warnings
from pathlib import Path
from typing import Any

import torch
from torch import nn

from dreamprm import weigher
from dreamprm.choices import Device, Precision, Quantize, Side, Trained, Vision
from dreamprm.config.schema import HypergradientConfig, ModelConfig
from dreamprm.errors import ConfigError, UserError
from dreamprm.policy import Policy, PolicyConfig
from dreamprm.progress import only_our_bars
from dreamprm.sources import model_folder
from dreamprm.weigher import Weigher, WeigherSettings

__all__ = ["build_device", "build_lookahead", "build_policy", "build_prm", "build_weigher", "check_model"]


def build_device(device: Device) -> torch.device:
    """`auto`: a GPU where there is one. Raises ConfigError where `cuda` is asked for and there is none."""
    if device is Device.cuda and not torch.cuda.is_available():
        raise ConfigError("device=cuda, but torch finds no GPU here; use device=auto or device=cpu")
    use_gpu = device is not Device.cpu and torch.cuda.is_available()
    return torch.device("cuda" if use_gpu else "cpu")


def build_weigher(settings: WeigherSettings, *, num_examples: int, num_domains: int) -> Weigher:
    """The weigher of the settings, for that many training examples and domains."""
    try:
        return weigher.build_weigher(settings, num_examples=num_examples, num_domains=num_domains)
    except (ValueError, TypeError) as error:
        raise ConfigError(f"weigher {settings.kind}: {error}") from error


def build_lookahead(
    settings: HypergradientConfig, prm: nn.Module, optimizer: torch.optim.Optimizer, clip_norm: float | None
) -> Any:
    """`bilevel.Lookahead` around the live inner optimizer. Raises ConfigError for what it does not support."""
    from bilevel import Lookahead

    words: dict[str, Any] = {name: getattr(settings, name) for name in ("product", "adam", "check")}  # checked as set
    return Lookahead(prm, optimizer, clip_norm=clip_norm, **words)


def check_model(settings: ModelConfig) -> None:
    """Raises UserError where the model's folder is not there or the hub cannot give it: before anything is loaded."""
    from dreamprm.prm.hub import hub_options

    try:
        hub_options(_model_path(settings))
    except (OSError, ValueError) as error:
        needs = f". It needs {settings.needs}" if settings.needs else ""
        raise UserError(f"model.path={settings.path}: {error}{needs}") from error


def build_prm(settings: ModelConfig, precision: Precision, device: torch.device) -> Any:
    """The PRM on its device, with adapters, frozen parts and quantization as set.

    Raises UserError, one line with what is needed, where the model is not there.
    """
    from dreamprm.prm import PRM, Prompt

    path = _model_path(settings)
    options: dict[str, Any] = {}
    if settings.attention is not None:
        options["attn_implementation"] = settings.attention
    if settings.num_layers is not None:
        options["num_hidden_layers"] = settings.num_layers
    if settings.quantize is not Quantize.none:
        options["quantization_config"] = _quantization(settings.quantize)
    prompt = {name: getattr(settings, name) for name in ("question", "separator") if getattr(settings, name)}
    if settings.layout is not None:
        prompt["layout"] = settings.layout
    if prompt:
        options["prompt"] = Prompt(**prompt)
    try:
        if settings.dropout is not None:
            options |= _dropout(path, settings.dropout)
        prm = PRM.from_pretrained(
            path,
            head=settings.head,
            collation=_collation(settings),
            dtype=torch.bfloat16 if precision is Precision.pure_bf16 else torch.float32,
            **options,
        )
    except OSError as error:
        raise UserError(f"{error}{'. It needs ' + settings.needs if settings.needs else ''}") from error
    if settings.gradient_checkpointing:
        model: Any = prm.model
        model.gradient_checkpointing_enable({"use_reentrant": False})
    if settings.trained is Trained.last_feed_forward:
        _keep_states(prm, settings)
    if settings.freeze_layers:
        if settings.lora.rank:
            raise ConfigError("model.freeze_layers and model.lora.rank exclude one another: adapters freeze the base")
        try:
            prm.freeze_layers(settings.freeze_layers, folder=settings.features)
        except ValueError as error:
            raise ConfigError(f"model.freeze_layers={settings.freeze_layers}: {error}") from error
    if settings.lora.rank:
        _add_lora(prm, settings)
    elif settings.quantize is not Quantize.none:
        raise ConfigError(f"model.quantize={settings.quantize} freezes the base: set model.lora.rank too")
    if settings.vision is not Vision.trained:
        _freeze_vision(prm, settings)
    return prm.to(device)


def _keep_states(prm: Any, settings: ModelConfig) -> None:
    """Raises ConfigError for the settings that say otherwise what is trained."""
    others: dict[str, bool] = {
        "model.lora.rank": settings.lora.rank > 0,
        "model.freeze_layers": settings.freeze_layers > 0,
        "model.quantize": settings.quantize is not Quantize.none,
        "model.vision": settings.vision is not Vision.trained,
    }
    if odd := [name for name, is_set in others.items() if is_set]:
        raise ConfigError(
            f"model.trained=last_feed_forward freezes all below that block, images too: leave {odd[0]} at its default"
        )
    try:
        prm.freeze_below_last_feed_forward(folder=settings.features)
    except ValueError as error:
        raise ConfigError(f"model.trained=last_feed_forward: {error}") from error


def _model_path(settings: ModelConfig | PolicyConfig) -> str:
    if (own := model_folder(settings.path)) is not None:
        return str(own)
    kind, _, inside = settings.path.partition(":")
    if kind != "package":
        return settings.path
    package, _, folder = inside.partition("/")
    # Found, never imported: no code of the package runs.
    found = importlib.util.find_spec(package)
    if found is None or not found.submodule_search_locations:
        raise UserError(
            f"model.path={settings.path}: there is no package {package}: "
            f"{getattr(settings, 'needs', '') or 'install it, or give a folder or a hub name'}"
        )
    place = Path(next(iter(found.submodule_search_locations))) / folder
    if place.suffix != ".gguf":
        return str(place)
    from dreamprm.prm.gguf import folder_of_gguf

    try:
        return str(folder_of_gguf(place))
    except OSError as error:
        raise UserError(f"model.path={settings.path}: {error}") from error


def _dropout(path: str, value: float) -> dict[str, float]:
    """The names that this model's configuration has for dropout probabilities."""
    from transformers import AutoConfig

    from dreamprm.prm.hub import hub_options

    try:
        known = AutoConfig.from_pretrained(path, trust_remote_code=False, **hub_options(path)).to_dict()
    except (OSError, ValueError) as error:
        raise UserError(f"model.path={path}: {str(error).splitlines()[0]}") from error
    return {name: value for name in known if name.endswith(("dropout", "dropout_prob", "dropout_rate"))}


def _collation(settings: ModelConfig) -> dict[str, Any] | None:
    given: dict[str, Any] = {
        name: getattr(settings, name)
        for name in ("max_length", "max_image_side")
        if getattr(settings, name) is not None
    }
    if settings.padding_side is not Side.right:
        given["padding_side"] = settings.padding_side.value
    if settings.max_tiles is not None:
        given["images_kwargs"] = {"crop_to_patches": True, "max_patches": settings.max_tiles}
    return given or None


def _quantization(kind: Quantize) -> Any:
    from transformers import BitsAndBytesConfig

    if kind is Quantize.int8:
        return BitsAndBytesConfig(load_in_8bit=True)
    return BitsAndBytesConfig(load_in_4bit=True, bnb_4bit_quant_type="nf4", bnb_4bit_compute_dtype=torch.bfloat16)


def _freeze_vision(prm: Any, settings: ModelConfig) -> None:
    cache = settings.vision is Vision.cached
    try:
        prm.freeze_vision(cache=cache, megabytes=settings.vision_megabytes, folder=settings.features)
    except ValueError as error:
        raise ConfigError(f"model.vision={settings.vision}: {error}") from error


def _add_lora(prm: Any, settings: ModelConfig) -> None:
    from peft import LoraConfig, get_peft_model

    from dreamprm.prm.vision import TOWER_NAMES

    lora = settings.lora
    targets: str | list[str] = lora.targets if lora.targets == "all-linear" else lora.targets.split(",")
    adapters = LoraConfig(r=lora.rank, lora_alpha=lora.alpha, lora_dropout=lora.dropout, target_modules=targets)
    if settings.vision is not Vision.trained:
        adapters.exclude_modules = rf"(.*\.)?({'|'.join(TOWER_NAMES)})\..*"
    with warnings.catch_warnings():
        # peft 0.21 asks transformers 5.23 for a property by its old name.
        warnings.filterwarnings("ignore", "`is_gradient_checkpointing` is deprecated")
        prm.model = get_peft_model(prm.model, adapters)


def build_policy(settings: PolicyConfig, device: Device) -> Any:
    """A `dreamprm.policy.Policy`. Raises UserError, one line, where the model is not there."""
    from transformers import AutoModelForImageTextToText

    from dreamprm.prm import load_processor
    from dreamprm.prm.hub import hub_options

    only_our_bars()
    path = _model_path(settings)
    try:
        options = hub_options(path)
        model: Any = AutoModelForImageTextToText.from_pretrained(path, trust_remote_code=False, **options)
        processor = load_processor(path, **options)
        return Policy(
            model.eval().to(build_device(device)),
            processor,
            temperature=settings.temperature,
            top_p=settings.top_p,
            max_new_tokens=settings.max_new_tokens,
            batch_size=settings.batch_size,
            system=settings.system,
        )
    except (OSError, ValueError) as error:
        reason = str(error).splitlines()[0]
        hint = "" if Path(path).exists() else "; without network, set policy.path to a local folder"
        raise UserError(f"policy.path={settings.path} cannot be loaded: {reason}{hint}") from error
