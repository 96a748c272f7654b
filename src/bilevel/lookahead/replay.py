"""What products that run the model again have in common: its recorded calls, and the graph from outputs to losses.

The losses are functions of the model's outputs y (and, in the loss code, perhaps of parameters directly). The outputs
are cut from the model's graph, so that q(w) = (∂ℓ/∂y)ᵀ w is one reverse pass over the small graph between them, kept as
a function of w. With ẏ the change of the outputs in direction u, d = ∂(<q_y(w), ẏ> + <q_θ(w), u>)/∂w: one number per
loss, whatever the losses' shape, and the user's loss code never runs twice.

One file because a recorded call and its running again are one thing: what is kept is what the replay needs.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Generator, Mapping, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass, field
from typing import Any, ClassVar

import torch
from torch import Tensor, nn
from torch.utils import _pytree as pytree

from .graph import leaves, refuse_reentrant, without_hooks
from .recorder import Part, Sites, lowest
from .saved import SavedCopies
from .seeing import Replacing, uncompiled
from .taken_step import TakenStep
from .typed import attention, fork_random, gradients, own_parameters, without_mkldnn

__all__ = ["Call", "Replay", "map_tensors", "output_leaves"]


def map_tensors(value: Any, function: Callable[[Tensor], Tensor]) -> Any:
    """`value` with each of its floating-point tensors replaced, looking into plain objects too."""

    def one(leaf: Any) -> Any:
        if isinstance(leaf, Tensor):
            return function(leaf) if leaf.is_floating_point() else leaf
        fields = getattr(leaf, "__dict__", None)
        if not fields or isinstance(leaf, nn.Module | type) or callable(leaf):
            return leaf
        moved = {name: map_tensors(part, function) for name, part in fields.items()}
        if all(moved[name] is part for name, part in fields.items()):
            return leaf
        other = copy.copy(leaf)
        other.__dict__.update(moved)
        return other

    return pytree.tree_map(one, value)


def output_leaves(value: Any) -> list[Tensor]:
    """The floating-point tensors of a model's output, whatever holds them, in a fixed order."""
    found: list[Tensor] = []

    def keep(tensor: Tensor) -> Tensor:
        found.append(tensor)
        return tensor

    map_tensors(value, keep)
    return found


class _Cut(torch.autograd.Function):
    """An output as the losses see it: the same memory, another graph, whose gradient arrives at `slot`.

    Not `slot` itself, which is a leaf and so could not be changed in place by the loss code.
    """

    @staticmethod
    def forward(ctx: Any, slot: Tensor, held: list[Tensor]) -> Tensor:
        return held[0].detach()

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> Any:
        return grads[0], None


@dataclass
class Call:
    """One call of the model: its arguments, what was random and how it was cast, and its outputs with their slots."""

    args: tuple[Any, ...]
    kwargs: dict[str, Any]
    versions: list[int]
    random: tuple[Tensor, list[Tensor]]
    autocast: tuple[str, bool, torch.dtype]
    training: tuple[bool, ...]
    foreign: bool = False
    num_outputs: int = 0
    outputs: dict[int, Tensor] = field(default_factory=dict[int, Tensor])
    slots: dict[int, Tensor] = field(default_factory=dict[int, Tensor])


def _random_state(device: torch.device) -> tuple[Tensor, list[Tensor]]:
    return torch.get_rng_state(), [torch.cuda.get_rng_state(device)] if device.type == "cuda" else []


def _tensors(*values: Any) -> list[Tensor]:
    return [leaf for leaf in pytree.tree_leaves(values) if isinstance(leaf, Tensor)]


class Replay:
    """The calls of one micro-batch, to be run again; subclasses say in which way."""

    exact: ClassVar[bool] = True
    needs_before: ClassVar[bool] = True
    through_step: ClassVar[bool] = True
    forward_mode: ClassVar[bool] = False
    same_random: ClassVar[bool] = True

    def __init__(self, sites: Sites, rows: Mapping[str, Tensor] | None, epsilon: float) -> None:
        self.model, self.sites, self.epsilon = sites.model, sites, epsilon
        self.precision: torch.dtype | None = None
        self.calls: list[Call] = []
        self._stack: list[Call | None] = []
        self._asked: list[tuple[Call, int]] = []
        self._weights: Tensor | None = None
        self._by_outputs: list[Tensor] = []
        self._by_parameters: dict[Tensor, Tensor] = {}
        self._device = next(iter(sites.parameters)).device
        self._recurrent = any(isinstance(module, nn.RNNBase) for module in sites.modules)

    @staticmethod
    def refuse(sites: Sites) -> None:
        """Subclasses name what they cannot do."""

    @contextmanager
    def open(self) -> Generator[None]:
        """Record every call of the model while open."""
        before = self.model.register_forward_pre_hook(self._before, with_kwargs=True)
        after = self.model.register_forward_hook(self._after)
        # The small graph outlives the step; what the loss code uses of a parameter must stay θ. Not so inside the
        # model.
        saved = SavedCopies(self.sites.parameters, lambda: not self._stack)
        try:
            # Dropout inside a fused kernel of the GPU draws another mask than the math kernel of the replay does; on
            # the CPU, attention with dropout always goes to the latter.
            with attention(self.forward_mode and self._device.type != "cpu"), uncompiled(self.model), saved.open():
                yield
        finally:
            before.remove()
            after.remove()
            saved.close()
            self._stack.clear()

    def _before(self, module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        if not torch.is_grad_enabled():  # no loss will depend on it
            self._stack.append(None)
            return
        kind = self._device.type
        cast = (kind, torch.is_autocast_enabled(kind), torch.get_autocast_dtype(kind))
        trained = self.sites.names
        seen = {id(p) for m in self.sites.modules for p in own_parameters(m).values() if p is not None}
        self._stack.append(
            Call(
                args, kwargs, [t._version for t in _tensors(args, kwargs)], _random_state(self._device), cast,
                tuple(m.training for m in self.sites.modules), foreign=any(id(p) not in seen for p in trained),
            )
        )  # fmt: skip

    def _after(self, module: nn.Module, args: tuple[Any, ...], output: Any) -> Any:
        call = self._stack.pop() if self._stack else None
        if call is None:
            return output
        self.calls.append(call)
        if call.autocast[1]:
            self.precision = lowest(self.precision, call.autocast[2])

        def cut(tensor: Tensor) -> Tensor:
            place, call.num_outputs = call.num_outputs, call.num_outputs + 1
            if not tensor.requires_grad:
                return tensor
            # One output may lie upstream of another (image features, of the logits): each slot gets only what the
            # losses ask of this output themselves.
            call.outputs[place], slot = tensor, tensor.detach().requires_grad_()
            call.slots[place] = slot
            return _cut(slot, [tensor])

        return map_tensors(output, cut)

    def roots(self, losses: Tensor) -> Sequence[Tensor]:
        """The losses, and the model's outputs."""
        return [losses, *(output for call in self.calls for output in call.outputs.values())]

    def autograd(self, losses: Tensor, weights: Tensor, parameters: Sequence[Tensor]) -> Sequence[Tensor | None]:
        """Σ w ∇ℓ by ordinary autograd, through the cut, keeping both graphs."""
        places = [(call.outputs[place], slot) for call in self.calls for place, slot in call.slots.items()]
        with without_hooks(parameters):
            first = gradients(losses, [*(s for _, s in places), *parameters], retain_graph=True, weights=weights)
            asked = [(output, g) for (output, _), g in zip(places, first, strict=False) if g is not None]
            through: Sequence[Tensor | None] = [None] * len(parameters)
            if asked:
                through = torch.autograd.grad(
                    [o for o, _ in asked], parameters, [g for _, g in asked], retain_graph=True, allow_unused=True
                )
        direct = first[len(places) :]
        return [b if a is None else a if b is None else a + b for a, b in zip(direct, through, strict=True)]

    def backward(self, losses: Tensor, coefficients: Tensor, scale: float) -> Tensor:
        """Add Σ c ∇ℓ to `.grad`, and keep q(w)."""
        slots = [(call, place) for call in self.calls for place in call.slots]
        direct = [leaf for leaf in leaves(losses) if leaf in self.sites.names]
        self._weights = coefficients.clone().requires_grad_()
        q = gradients(
            losses, [*(call.slots[place] for call, place in slots), *direct], create_graph=True, weights=self._weights
        )
        kept = [(key, g) for key, g in zip(slots, q, strict=False) if g is not None]
        self._asked = [key for key, _ in kept]
        self._by_outputs = [g for _, g in kept]
        self._by_parameters = {p: g for p, g in zip(direct, q[len(slots) :], strict=True) if g is not None}
        if not kept and not self._by_parameters:
            raise RuntimeError(
                "no call of the model was recorded in lookahead.inner(): compute the losses inside the block, by "
                "calling the very module that was given to Lookahead, and let them depend on its output"
            )
        foreign = [call for call, _ in self._asked if call.foreign]
        if foreign:
            raise RuntimeError(
                "the model was called through functional_call with tensors made of its parameters, which a replay does "
                "not have; choose product='ghost' or 'unroll'"
            )
        outputs = [call.outputs[place] for call, place in self._asked]
        for output in outputs:
            refuse_reentrant(output)
        deltas: list[Tensor | None] = [g.detach() * scale if scale != 1.0 else g.detach() for g in self._by_outputs]
        if self._by_parameters:  # uses beside the model's outputs: in the loss code, or of a hooked activation
            total = (coefficients * losses).sum()
            _backward_together([total if scale == 1.0 else total * scale, *outputs], [None, *deltas])
        else:
            _backward_together(outputs, deltas)
        for call in self.calls:
            call.outputs.clear()
        used = {id(call) for call, _ in self._asked}
        self.calls = [call for call in self.calls if id(call) in used]
        return coefficients

    def products(self, cotangent: Mapping[Tensor, Tensor], step: TakenStep) -> list[Part]:
        """d, shaped like the losses."""
        assert self._weights is not None, "backward has run"
        changes = self._changes(cotangent, step)
        pairs = [(q, changes[id(call), place]) for q, (call, place) in zip(self._by_outputs, self._asked, strict=True)]
        pairs += [(g, cotangent[p]) for p, g in self._by_parameters.items() if p in cotangent]
        pairs = [(q, change.to(q.dtype)) for q, change in pairs if q.requires_grad]
        self.calls, self._by_outputs, self._by_parameters = [], [], {}
        if not pairs:
            return [Part((), torch.zeros_like(self._weights))]
        try:
            (d,) = torch.autograd.grad([q for q, _ in pairs], [self._weights], [change for _, change in pairs])
        except RuntimeError as error:
            raise RuntimeError(
                f"the loss code cannot be differentiated twice ({error}); choose product='ghost', or write it with "
                "torch's own functions"
            ) from error
        return [Part((), d)]

    def _changes(self, cotangent: Mapping[Tensor, Tensor], step: TakenStep) -> dict[tuple[int, int], Tensor]:
        """ẏ of every output that the losses depend on, by (call, place)."""
        raise NotImplementedError

    def _run(self, call: Call, replacing: Replacing) -> list[Tensor]:
        """The model's outputs once more, with other values of its parameters, and nothing else changed by it."""
        if [t._version for t in _tensors(call.args, call.kwargs)] != call.versions:
            raise RuntimeError(
                "an input of the model was written to since lookahead.inner() (a buffer filled again?), so it cannot "
                "be run again; give each batch tensors of its own, or choose product='ghost'"
            )
        if tuple(m.training for m in self.sites.modules) != call.training:
            return self._in_the_same_mode(call, replacing)
        kind, enabled, dtype = call.autocast
        devices = [self._device] if kind == "cuda" else []
        args, kwargs = pytree.tree_map(_detached, (call.args, call.kwargs))
        with (
            fork_random(devices, self.same_random),
            torch.autocast(kind, dtype=dtype, enabled=enabled, cache_enabled=False),
            attention(self.forward_mode),
            without_mkldnn() if self._recurrent else nullcontext(),
            uncompiled(self.model),
            # Gradients stay enabled, though nothing here requires any: so the model's own no_grad can be told apart.
            torch.enable_grad(),
            replacing.replaced(),
        ):
            if self.same_random:
                torch.set_rng_state(call.random[0])
                for state in call.random[1]:
                    torch.cuda.set_rng_state(state, self._device)
            return output_leaves(self.model(*args, **kwargs))

    def _in_the_same_mode(self, call: Call, replacing: Replacing) -> list[Tensor]:
        now = [m.training for m in self.sites.modules]
        try:
            for module, training in zip(self.sites.modules, call.training, strict=True):
                module.training = training
            return self._run(call, replacing)
        finally:
            for module, training in zip(self.sites.modules, now, strict=True):
                module.training = training


def _detached(leaf: Any) -> Any:
    return leaf.detach() if isinstance(leaf, Tensor) else leaf


def _backward_together(roots: Sequence[Tensor], weights: Sequence[Tensor | None]) -> None:
    engine: Any = torch.autograd
    engine.backward(list(roots), list(weights))


def _cut(slot: Tensor, held: list[Tensor]) -> Tensor:
    function: Any = _Cut
    return function.apply(slot, held)
