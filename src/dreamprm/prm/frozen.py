"""The lower layers of a text model, or all of them, frozen; what they give is computed once per chain and kept.

Shapes: B chains, T tokens, H hidden width. `num_layers` layers lie below the cut; a pass from kept features runs the
layers above it only, and gives what a whole pass gives: embeddings and lower layers depend on the chain's own tokens
and on nothing that is trained. Dropout in the lower layers is off.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn

from dreamprm.prm.feature_cache import FeatureStore, content_name

__all__ = ["FrozenLayers", "layer_list"]


class _Stop(Exception):
    """Ends a forward pass at the cut: what lies above it is not needed."""


class FrozenLayers:
    """Freezes the embeddings and the first `num_layers` layers of `body`; with `cache`, keeps their output by chain.

    body: a transformers model of text whose layers stand in one nn.ModuleList.
    folder: where features are kept between runs too, in safetensors; None keeps them in memory only.
    Raises ValueError where the layers cannot be told, or where none would be left to train.
    """

    def __init__(
        self, body: nn.Module, num_layers: int, *, cache: bool = True, folder: str | Path | None = None
    ) -> None:
        name, layers = layer_list(body)
        if not 0 < num_layers <= len(layers):
            raise ValueError(f"{num_layers} layers cannot be frozen: this model has {len(layers)}")
        if cache and getattr(getattr(body, "config", None), "vision_config", None) is not None:
            raise ValueError("the frozen layers' features are cached for text alone; set cache=false for images")
        self.body, self.layers, self.num_layers, self.cache = body, layers, num_layers, cache
        below = _below(body, name, num_layers)
        for parameter in below:
            parameter.requires_grad_(False)
        # Features are those of these very parameters: a folder of its own for any other model or cut.
        inside = None
        if folder is not None and cache:
            inside = Path(folder) / content_name(*below, note=f"{num_layers} layers")
        self.store = FeatureStore(inside)

    @contextlib.contextmanager
    def serve(self, run: Any, inputs: Mapping[str, Tensor]) -> Iterator[None]:
        """Within, a forward pass on `inputs` starts at the cut, from kept features.

        run: (inputs) -> anything, one forward pass; called without gradients for chains whose features are missing.
        """
        if not self.cache:
            yield
            return
        hidden = self._features(run, inputs)

        # The last frozen layer gives the kept features, whatever it is called on; those below it pass it on.
        handle = self.layers[self.num_layers - 1].register_forward_hook(lambda layer, given, output: hidden)
        lower = list(self.layers)[: self.num_layers]
        for layer in lower:
            layer.forward = _pass_on
        try:
            yield
        finally:
            handle.remove()
            for layer in lower:
                del layer.forward

    def _features(self, run: Any, inputs: Mapping[str, Tensor]) -> Float[Tensor, "B T H"]:
        ids, mask = inputs["input_ids"], inputs["attention_mask"].bool()
        names = [content_name(row[keep].to(torch.int64)) for row, keep in zip(ids.cpu(), mask.cpu())]

        def compute(missing: list[int]) -> list[Tensor]:
            rows = torch.tensor(missing, device=ids.device)
            chosen = {key: value[rows] if isinstance(value, Tensor) else value for key, value in inputs.items()}
            return [hidden[mask[row]] for row, hidden in zip(missing, self._run_below(run, chosen))]

        kept = self.store.take(names, compute)
        hidden = kept[0].new_zeros((*ids.shape, kept[0].shape[-1]), device=ids.device)
        for row, value in enumerate(kept):
            hidden[row, mask[row]] = value.to(ids.device)
        return hidden

    def _run_below(self, run: Any, inputs: Mapping[str, Tensor]) -> Tensor:
        caught: list[Tensor] = []

        def catch(layer: nn.Module, given: tuple[Any, ...], output: Any) -> None:
            caught.append(output if isinstance(output, Tensor) else output[0])
            raise _Stop

        handle = self.layers[self.num_layers - 1].register_forward_hook(catch)
        was_training = self.body.training
        self.body.eval()
        try:
            with torch.no_grad(), contextlib.suppress(_Stop):
                run(inputs)
        finally:
            handle.remove()
            self.body.train(was_training)
        return caught[0]


def _pass_on(hidden_states: Tensor, *given: Any, **named: Any) -> Tensor:
    return hidden_states


def layer_list(body: nn.Module) -> tuple[str, nn.ModuleList]:
    """The path and the list of a text model's layers. Raises ValueError where there is not one such list."""
    config: Any = getattr(body, "config", None)
    count = None if config is None else getattr(config.get_text_config(), "num_hidden_layers", None)
    lists = [(n, m) for n, m in body.named_modules() if isinstance(m, nn.ModuleList) and len(m) == count]
    lists = [(n, m) for n, m in lists if not any(part in n for part in ("vision", "visual"))]
    if len(lists) != 1:
        raise ValueError(f"{type(body).__name__}: its layers stand in {len(lists)} lists, not in one")
    return lists[0]


def _below(body: nn.Module, name: str, num_layers: int) -> list[nn.Parameter]:
    """The parameters registered before the list of layers (embeddings), and those of its first layers."""
    found: list[nn.Parameter] = []
    for path, parameter in body.named_parameters():
        if path.startswith(f"{name}.") and int(path.removeprefix(f"{name}.").split(".")[0]) >= num_layers:
            break
        found.append(parameter)
    return found
