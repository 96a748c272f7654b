"""A weigher as one safetensors file: parameters, settings, and the keys or domains that its rows belong to."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from safetensors import safe_open
from safetensors.torch import save_file
from torch import nn

from dreamprm.files import replacing
from dreamprm.weigher.building import WEIGHERS
from dreamprm.weigher.instance_table import InstanceTable
from dreamprm.weigher.trust import Trust
from dreamprm.weigher.weigher import Weigher

__all__ = ["WeigherError", "load", "save"]

_KEYS, _ABOUT = "keys", "weigher"


class WeigherError(ValueError):
    """A weigher file that does not fit the data it is asked to weigh."""


def save(
    weigher: nn.Module, path: str | Path, *, keys: Sequence[str] | None = None, domains: Sequence[str] | None = None
) -> None:
    """Writes a weigher. keys: the data set's keys by row (an instance table needs them); domains: by index."""
    kinds = _kinds()
    if type(weigher) not in kinds.values() or not isinstance(weigher, Weigher):
        raise WeigherError(f"{type(weigher).__name__} is not one of {', '.join(kinds)}")
    table = {InstanceTable: "table", Trust: "pull"}
    rows = next((len(getattr(weigher, name)) for make, name in table.items() if isinstance(weigher, make)), None)
    if rows is not None and (keys is None or len(keys) != rows):
        raise WeigherError(f"a table of {rows} examples needs their {rows} keys, got {len(keys or ())}")
    tensors = {f"weigher.{name}": value.detach().contiguous() for name, value in weigher.state_dict().items()}
    if rows is not None and keys is not None:
        if any("\n" in key for key in keys):
            raise WeigherError("a key must not hold a line break")
        # As bytes in a tensor: ten million keys do not belong into the file's header.
        tensors[_KEYS] = torch.from_numpy(np.frombuffer("\n".join(keys).encode(), dtype=np.uint8).copy())
    about = {
        "kind": next(name for name, make in kinds.items() if make is type(weigher)),
        "settings": weigher.settings,
        "domains": list(domains) if domains is not None else None,
    }
    # One entry: safetensors writes several in any order, and equal weighers are to be equal files.
    # An empty dictionary of tensors is a valid file: Uniform has no parameters.
    with replacing(Path(path)) as part:
        save_file(tensors, part, {_ABOUT: json.dumps(about, sort_keys=True)})


def load(path: str | Path, *, keys: Sequence[str] | None = None, domains: Sequence[str] | None = None) -> Weigher:
    """The weigher of a file. Raises WeigherError where given keys or domains are not those it was saved with."""
    with safe_open(str(path), "pt") as file:
        about = json.loads((file.metadata() or {}).get(_ABOUT, "{}"))
        kinds = _kinds()
        if about.get("kind") not in kinds:
            raise WeigherError(f"{path} holds no weigher of ours: its kind is {about.get('kind')!r}")
        tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 - not a dict
    blob = tensors.pop(_KEYS, None)
    if keys is not None and blob is not None:
        _compare(path, "key", blob.numpy().tobytes().decode().split("\n"), keys)
    stored = about["domains"]
    if domains is not None and stored is not None:
        _compare(path, "domain", stored, domains)
    weigher = kinds[about["kind"]](**about["settings"])
    weigher.load_state_dict({name.removeprefix("weigher."): value for name, value in tensors.items()})
    return weigher


def _kinds() -> dict[str, type[Weigher]]:
    """The name in a file -> class: that of the class, for a user's own its whole name, as in the configuration."""
    return {name if ":" in name else make.__name__: make for name, (_, make) in WEIGHERS.items()}


def _compare(path: str | Path, what: str, stored: Sequence[str], given: Sequence[str]) -> None:
    if list(stored) == list(given):
        return
    place = next((i for i, (a, b) in enumerate(zip(stored, given)) if a != b), min(len(stored), len(given)))
    shown = [names[place] if place < len(names) else "nothing" for names in (stored, given)]
    raise WeigherError(
        f"{path} was learned on {len(stored)} {what}s and the data have {len(given)}; the first difference is row "
        f"{place}: {shown[0]!r} there, {shown[1]!r} here. Use the data of that run, in the same order"
    )
