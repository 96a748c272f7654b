"""Bases held in four bits by bitsandbytes."""

from __future__ import annotations

from torch import nn

__all__ = ["keep_layout"]


def keep_layout(model: nn.Module) -> None:
    """Keeps 4-bit layers from repacking themselves at their first evaluation on a CPU with AVX512-BF16.

    bitsandbytes (0.50) repacks there in place, rounds the blocks' scales to bf16 and computes in bf16 from then on, so
    that a PRM would be judged by other weights than it trains with, and other ones than on the next machine; and it
    asserts that widths are multiples of 32. Without effect on GPUs, other CPUs, and models without such layers.
    """
    for module in model.modules():
        if getattr(module, "support_avx512bf16_for_cpu", False):
            module.support_avx512bf16_for_cpu = False  # type: ignore[assignment]
