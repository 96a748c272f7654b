"""The product `unroll`: double backward through the inner gradient. Exact, and as large as the whole graph.

The inner pass is the user's own: `.grad` is what `(c · losses).sum().backward()` leaves, bit for bit, whatever hooks,
lists or penalties take part. Beside it q(w) = Σ_k w_k ∇ℓ_k is kept as a function of w, and d = ∂<u, q(w)>/∂w.
"""

from __future__ import annotations

from collections.abc import Generator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any, ClassVar

import torch
from torch import Tensor
from torch.nn.attention import SDPBackend, sdpa_kernel

from .graph import refuse_reentrant
from .recorder import Part, Sites, lowest, plain_autograd
from .saved import SavedCopies
from .seeing import uncompiled
from .taken_step import TakenStep
from .typed import backward, gradients

__all__ = ["DoubleBackward"]


class DoubleBackward:
    """The differentiable inner gradient of one micro-batch."""

    exact: ClassVar[bool] = True
    needs_before: ClassVar[bool] = False
    through_step: ClassVar[bool] = True

    def __init__(self, sites: Sites, rows: Mapping[str, Tensor] | None, epsilon: float) -> None:
        self.sites = sites
        self.precision: torch.dtype | None = None
        self._weights: Tensor | None = None
        self._gradients: dict[Tensor, Tensor] = {}
        # For several steps: H u of the weighted loss, beside d; asked for before `backward`, there after `products`.
        self.wants_hessian = False
        self.hessian: dict[Tensor, Tensor] = {}

    @staticmethod
    def refuse(sites: Sites) -> None:
        """Everything that can be differentiated twice is served."""

    @contextmanager
    def open(self) -> Generator[None]:
        """Attention by the only kernel that can be differentiated twice; what is saved of θ is saved as a copy."""
        hook = self.sites.model.register_forward_pre_hook(self._note_precision)
        saved = SavedCopies(self.sites.parameters, lambda: True)
        try:
            with sdpa_kernel(SDPBackend.MATH), uncompiled(self.sites.model), saved.open():
                yield
        finally:
            hook.remove()
            saved.close()

    def _note_precision(self, module: Any, args: Any) -> None:
        kind = next(iter(self.sites.parameters)).device.type
        if torch.is_autocast_enabled(kind):
            self.precision = lowest(self.precision, torch.get_autocast_dtype(kind))

    def roots(self, losses: Tensor) -> Sequence[Tensor]:
        """The losses."""
        return [losses]

    def autograd(self, losses: Tensor, weights: Tensor, parameters: Sequence[Tensor]) -> Sequence[Tensor | None]:
        """Σ w ∇ℓ by ordinary autograd, keeping the graph."""
        return plain_autograd(losses, weights, parameters, hooks=True)

    def backward(self, losses: Tensor, coefficients: Tensor, scale: float) -> Tensor:
        """Add Σ c ∇ℓ to `.grad`, and keep q(w)."""
        refuse_reentrant(losses)
        self._weights = coefficients.clone().requires_grad_()
        # w enters as the start of the reverse pass, not as a factor: a saved factor would be a constant here.
        grads = gradients(losses, self.sites.parameters, create_graph=True, weights=self._weights)
        self._gradients = {p: g for p, g in zip(self.sites.parameters, grads, strict=True) if g is not None}
        total = (coefficients * losses).sum()
        # H u goes back through the forward pass once more.
        backward(total if scale == 1.0 else total * scale, retain_graph=self.wants_hessian)
        return coefficients

    def products(self, cotangent: Mapping[Tensor, Tensor], step: TakenStep) -> list[Part]:
        """d by one more reverse pass, shaped like the losses."""
        assert self._weights is not None, "backward has run"
        used = [p for p in self._gradients if p in cotangent and self._gradients[p].requires_grad]
        if not used:
            return [Part((), torch.zeros_like(self._weights))]
        try:
            others = list(self.sites.parameters) if self.wants_hessian else []
            both: Any = torch.autograd.grad(
                [self._gradients[p] for p in used],
                [self._weights, *others],
                grad_outputs=[cotangent[p].to(self._gradients[p].dtype) for p in used],
                allow_unused=bool(others),
            )
        except RuntimeError as error:
            raise NotImplementedError(
                f"a function of this model has no second derivative ({str(error).splitlines()[0]}); choose "
                "product='ghost'"
            ) from error
        d, *found = both
        self._gradients = {}
        self.hessian = {p: h for p, h in zip(others, found, strict=True) if h is not None}
        return [Part((), torch.zeros_like(self._weights) if d is None else d)]
