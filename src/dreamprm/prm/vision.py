"""The vision tower, frozen; what it gives is computed once per image and kept.

Shapes: N tiles or images, L patches of all images in one row, M merged patches of all images, P positions of a tile,
W the tower's width, K tensors that the model reads of the tower's output. The tower sees pixels alone and nothing in
it is trained, so a pass from kept output gives what a whole pass gives, and the projector behind the tower is trained
as ever. Qwen's merger is part of its tower. Dropout in a cached tower is off.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from dreamprm.prm.feature_cache import FeatureStore, content_name

__all__ = ["TOWER_NAMES", "CachedVision", "freeze_vision"]

TOWER_NAMES = ("vision_tower", "visual", "vision_model")
"""What the families of transformers call their vision towers."""


def freeze_vision(model: nn.Module) -> None:
    """Takes every vision tower of `model` out of the training.

    Raises ValueError where there is none, or where adapters stand in it.
    """
    towers = [(n, module) for n, module in model.named_modules() if n.rpartition(".")[2] in TOWER_NAMES]
    if not towers:
        raise ValueError("this model has no vision tower")
    for name, tower in towers:
        _refuse_adapters(name, tower)
        tower.requires_grad_(False)


class CachedVision:
    """Keeps the output of a frozen vision tower by image: of one tile, or of one packed image.

    body: a transformers model of a known family (`_FAMILIES`), its tower frozen.
    megabytes: what may lie in memory, the most recently used.
    folder: where features are kept between runs too, in safetensors; None keeps them in memory only.
    Raises ValueError for a family that is not known, for a tower that is trained, and for one with adapters.
    """

    def __init__(self, body: Any, *, megabytes: int = 1024, folder: str | Path | None = None) -> None:
        family = getattr(body.config, "model_type", type(body).__name__)
        if family not in _FAMILIES:
            known = ", ".join(_FAMILIES)
            raise ValueError(f"the vision tower of {family} cannot be cached; known are {known}: only freeze it")
        name, forward = _FAMILIES[family]
        self.body, self.name, self.tower = body, name, getattr(body, name)
        self.folder = None if folder is None else Path(folder)
        self.limit = megabytes * 2**20
        self._replacement = forward
        _refuse_adapters(name, self.tower)
        self._checked_state()
        self._state: list[tuple[Any, ...]] = []
        self.store = FeatureStore(limit=self.limit)  # until the first pass: the tower may yet go to another device

    @contextlib.contextmanager
    def serve(self) -> Iterator[None]:
        """Within, a forward pass takes what is kept in place of running the tower.

        Raises ValueError where the tower has come to be trained since.
        """
        if (state := self._checked_state()) != self._state:
            self.store.flush()
            self._state, self.store = state, self._new_store()
        own = self.tower.__dict__.get("forward")  # e.g. accelerate's, with device_map
        run = self.tower.forward
        self.tower.forward = lambda *given, **named: self._replacement(self, run, *given, **named)
        try:
            yield
        finally:
            del self.tower.forward
            if own is not None:
                self.tower.forward = own

    def _checked_state(self) -> list[tuple[Any, ...]]:
        """What changes when a parameter does; counting its versions costs nothing, a hash of all would."""
        for name, parameter in self.tower.named_parameters():
            if parameter.requires_grad:
                raise ValueError(
                    f"the features of the vision tower are cached, but its parameter {name} is trained: freeze it, or "
                    "do not cache"
                )
        tensors = [*self.tower.parameters(), *self.tower.buffers()]
        return [(id(tensor), tensor._version, tensor.dtype, tensor.device) for tensor in tensors]

    def _new_store(self) -> FeatureStore:
        if self.folder is None:
            return FeatureStore(limit=self.limit)
        # Features are those of these very parameters: a folder of its own for any other tower. The state dict has a
        # quantized parameter's scales too.
        tensors = [value for value in self.tower.state_dict().values() if isinstance(value, Tensor)]
        note = f"{self.tower.config.to_json_string()} {_layers(self.body)}"
        return FeatureStore(self.folder / content_name(*tensors, note=note), self.limit)

    def take(
        self, images: list[tuple[Tensor, ...]], device: torch.device, compute: Callable[[list[int]], Any]
    ) -> list[Tensor]:
        """What is kept of each image, on the device. compute: places of missing images -> the K tensors of each."""
        kind = device.type
        cast = torch.get_autocast_dtype(kind) if torch.is_autocast_enabled(kind) else "none"
        names = [content_name(*image, note=f"autocast {cast}") for image in images]
        was_training = self.tower.training

        def without_gradients(missing: list[int]) -> Any:
            self.tower.eval()
            try:
                with torch.no_grad():
                    return compute(missing)
            finally:
                self.tower.train(was_training)

        return [value.to(device) for value in self.store.take(names, without_gradients)]


def _tiles(
    cached: CachedVision, run: Any, pixel_values: Float[Tensor, "N C height width"], *given: Any, **named: Any
) -> Any:
    """InternVL, LLaVA-OneVision, Aya Vision: each row is a tile. Kept: the hidden states that the model reads."""
    from transformers.modeling_outputs import BaseModelOutputWithPooling

    layers = _layers(cached.body)

    def compute(missing: list[int]) -> Float[Tensor, "N K P W"]:
        output = run(pixel_values[torch.tensor(missing, device=pixel_values.device)], *given, **named)
        return torch.stack([_hidden(output, layer) for layer in layers], 1)

    images = [(tile,) for tile in pixel_values.cpu()]
    kept = torch.stack(cached.take(images, pixel_values.device, compute), 1)  # (K, N, P, W)
    hidden: Any = dict(zip(layers, kept))
    return BaseModelOutputWithPooling(last_hidden_state=hidden.get(_LAST), hidden_states=hidden)


def _packed(
    cached: CachedVision,
    run: Any,
    hidden_states: Float[Tensor, "L C"],
    grid_thw: Int[Tensor, "N 3"],
    *given: Any,
    **named: Any,
) -> Any:
    """Qwen-VL: the patches of all images in one row. Kept: the merged patches, and those of Qwen3-VL's deepstack."""
    from transformers.modeling_outputs import BaseModelOutputWithPooling

    sizes = grid_thw.prod(1).tolist()
    patches = hidden_states.split(sizes)

    def compute(missing: list[int]) -> list[Float[Tensor, "K M W"]]:
        rows = torch.tensor(missing, device=grid_thw.device)
        output = run(torch.cat([patches[place] for place in missing]), grid_thw[rows], *given, **named)
        kept = torch.stack([output.pooler_output, *getattr(output, "deepstack_features", ())])
        merged = cached.tower.spatial_merge_size**2
        return list(kept.split([sizes[place] // merged for place in missing], 1))

    images = list(zip(hidden_states.cpu().split(sizes), grid_thw.cpu()))
    first, *deep = torch.cat(cached.take(images, hidden_states.device, compute), 1)
    output: Any = BaseModelOutputWithPooling(pooler_output=first)  # type: ignore[arg-type]
    output.deepstack_features = deep
    return output


_LAST = "last"


def _layers(body: Any) -> list[Any]:
    """Which hidden states the model reads of its tower, by the indices that it reads them by."""
    layers = getattr(body.config, "vision_feature_layer", _LAST)
    if body.config.model_type == "internvl" and layers == -1:
        return [_LAST]  # behind the last norm, where the last hidden state is before it
    return list(layers) if isinstance(layers, (list, tuple)) else [layers]


def _hidden(output: Any, layer: Any) -> Tensor:
    return output.last_hidden_state if layer == _LAST else output.hidden_states[layer]


def _refuse_adapters(name: str, tower: nn.Module) -> None:
    if any(hasattr(module, "base_layer") for module in tower.modules()):
        raise ValueError(f"adapters stand in the vision tower {name}: leave it out by peft's exclude_modules, or train")


_FAMILIES: dict[str, tuple[str, Callable[..., Any]]] = {
    "aya_vision": ("vision_tower", _tiles),
    "internvl": ("vision_tower", _tiles),
    "llava_onevision": ("vision_tower", _tiles),
    "qwen2_vl": ("visual", _packed),
    "qwen2_5_vl": ("visual", _packed),
    "qwen3_vl": ("visual", _packed),
}
"""Model type -> the tower's name in the body, and what stands in for its forward pass."""
