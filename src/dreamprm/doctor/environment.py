"""What this installation has, and what works here: `dreamprm doctor env`."""

from __future__ import annotations

import os
import platform
import sys
from collections.abc import Iterator
from importlib.metadata import PackageNotFoundError, requires, version

import torch
from packaging.requirements import Requirement

__all__ = ["environment_lines"]

_FOR = {
    "prm": "training and judging",
    "serve": "dreamprm serve",
    "api": "sample and label by an endpoint",
    "rl": "TRL's trainers",
    "lightning": "Lightning",
    "text": "+experiment=real_text",
    "tensorboard": "tracker=tensorboard",
    "trackio": "tracker=trackio",
    "wandb": "tracker=wandb",
}
"""Extra -> what it is for. Extras for working on the project itself are left out."""


def environment_lines() -> Iterator[str]:
    """Lines for the terminal: versions, devices, what each extra still needs. Nothing of a user's data or names."""
    yield f"dreamprm {version('dreamprm')}, Python {platform.python_version()}, {sys.platform} {platform.machine()}"
    threads = f"{torch.get_num_threads()} of {os.cpu_count()} cores"
    yield f"torch {torch.__version__}: {threads}; {', '.join(_devices())}"
    yield f"bf16: {_bf16()}"
    yield f"4-bit bases and 8-bit optimizers (bitsandbytes): {_bitsandbytes()}"
    yield ""
    yield "extras (pip install 'dreamprm[NAME]'):"
    for extra, use in _FOR.items():
        missing = list(_missing(extra))
        yield f"  {extra:<12} {'ready' if not missing else 'needs ' + ', '.join(missing):<24} {use}"


def _devices() -> Iterator[str]:
    found = False
    for number in range(torch.cuda.device_count()):
        about = torch.cuda.get_device_properties(number)
        found = True
        yield f"cuda:{number} {about.name}, {about.total_memory / 2**30:.0f} GB"
    if torch.backends.mps.is_available():
        found = True
        yield "mps (not tried: set device=cpu where something fails)"
    if not found:
        yield "no GPU: device=auto is the CPU"


def _bf16() -> str:
    if torch.cuda.is_available():
        return "yes" if torch.cuda.is_bf16_supported() else "this GPU has none: precision=fp32"
    flags = torch.backends.cpu.get_cpu_capability()
    return f"computed on the CPU ({flags}), as fast as fp32 only where that has AMX or AVX512-BF16"


def _bitsandbytes() -> str:
    """Tried, not looked up: a layer of four bits, forwards."""
    try:
        import bitsandbytes

        device = "cuda" if torch.cuda.is_available() else "cpu"
        kind = bitsandbytes.nn.Linear4bit  # pyright: ignore[reportPrivateImportUsage]
        layer = kind(64, 64, quant_type="nf4", compute_dtype=torch.float32).to(device)
        with torch.no_grad():
            layer(torch.ones(1, 64, device=device))
    except Exception as error:  # whatever its native code meets here
        return f"no ({type(error).__name__}: {str(error).splitlines()[0] if str(error) else ''})"
    return f"yes ({version('bitsandbytes')}, on the {'GPU' if device == 'cuda' else 'CPU'})"


def _missing(extra: str) -> Iterator[str]:
    """What an extra asks for and this environment lacks, or has in too old a version."""
    for text in requires("dreamprm") or ():
        wanted = Requirement(text)
        if wanted.marker is None or not wanted.marker.evaluate({"extra": extra}):
            continue
        if wanted.name == "dreamprm":
            for inner in wanted.extras:
                yield from _missing(inner)
            continue
        try:
            here = version(wanted.name)
        except PackageNotFoundError:
            yield wanted.name
            continue
        if not wanted.specifier.contains(here, prereleases=True):
            yield f"{wanted.name}{wanted.specifier} (is {here})"
