"""One cell, in a process of its own: `python -m benchmarks.engine.cell '{"kind": "time", …}'` prints a JSON line.

time      floor and contestant alternate, so that a drift of the machine meets both; wall and processor seconds of each
memory    the highest resident memory above the idle process (imports done, nothing built), over a plain update and two
          more
accuracy  every contestant from one state against float64 autograd
probe     a peer without workarounds: its error
"""

from __future__ import annotations

import gc
import json
import sys
import time
import traceback
import warnings
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch

from .cases import Case, Setting
from .contestants import Contestant, make
from .truth import truth

__all__ = ["accuracy", "memory", "probe", "run_cell", "timing"]

Spec = dict[str, Any]


def run_cell(spec: Spec) -> Spec:
    """The result of one cell; an exception becomes {"error": its text}."""
    measure = {"time": timing, "memory": memory, "accuracy": accuracy, "probe": probe}[spec["kind"]]
    try:
        return measure(spec, Setting(**spec["setting"]))
    except Exception as error:  # a peer that cannot run is a result
        return {"error": _text(error)}


def timing(spec: Spec, setting: Setting) -> Spec:
    """Seconds of each update of floor and contestant, in pairs."""
    floor, contestant = _ready("floor", setting), _ready(spec["name"], setting)
    floor.update()
    contestant.update()
    pairs: list[list[float]] = []
    start = time.perf_counter()
    while len(pairs) < spec["max_pairs"]:
        if len(pairs) >= spec["min_pairs"] and time.perf_counter() - start > spec["seconds"]:
            break
        pairs.append([*_clock(floor), *_clock(contestant)])
    return {"pairs": pairs}


def _clock(contestant: Contestant) -> tuple[float, float]:
    gc.collect()  # cycles of the update before belong to it
    wall, processor = time.perf_counter(), time.process_time()
    contestant.update()
    return time.perf_counter() - wall, time.process_time() - processor


def _ready(name: str, setting: Setting) -> Contestant:
    case = Case(setting)
    case.train(1)  # past Adam's first step, with its moments in place
    return make(name, case)


def memory(spec: Spec, setting: Setting) -> Spec:
    """Bytes above the idle process."""
    if not spec["name"].startswith("floor"):
        _import_peer(spec["name"])
    torch.randn(64, 64) @ torch.randn(64, 64)  # the libraries' own buffers belong to the idle process
    gc.collect()
    Path("/proc/self/clear_refs").write_text("5")  # resets VmHWM to what is resident now
    idle = _status("VmRSS")
    contestant = _ready(spec["name"], setting)
    for _ in range(2):
        contestant.update()
    return {"peak": _status("VmHWM") - idle, "idle": idle}


def _status(field: str) -> int:
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith(field):
            return int(line.split()[1]) * 1024
    raise RuntimeError(f"/proc/self/status has no {field}: memory cells need Linux")


def _import_peer(name: str) -> None:
    if name == "betty":
        import betty.engine  # type: ignore[import-not-found]  # noqa: F401
    elif name in ("torchopt", "higher"):
        __import__(name)


def accuracy(spec: Spec, setting: Setting) -> Spec:
    """Cosine and relative error of every contestant named, at update t = spec["t"]."""
    start = Case(setting)
    start.train(spec["t"] - 1)
    snapshot = start.snapshot()
    expected, norm = truth(start)
    result: Spec = {"truth_norm": float(expected.norm()), "gradient_norm": norm, "values": {}}
    for name in spec["names"]:
        case = Case(setting)
        case.load(snapshot)
        try:
            value = make(name, case).update()
        except Exception as error:  # a refusal is a result
            result["values"][name] = {"error": _text(error)}
            continue
        assert value is not None
        value = value.double()
        result["values"][name] = {
            "cosine": float(torch.cosine_similarity(value, expected, 0)),
            "relative": float((value - expected).norm() / expected.norm()),
        }
    return result


def probe(spec: Spec, setting: Setting) -> Spec:
    """What a peer says without workarounds, with AdamW and with Adam: every error, shortest form."""
    errors: list[str] = []
    for decay in (setting.weight_decay, 0.0):
        try:
            make(spec["name"], Case(replace(setting, weight_decay=decay, workarounds=False))).update()
        except Exception as error:
            errors.append(_text(error))
    return {"errors": list(dict.fromkeys(errors))}


def _text(error: Exception) -> str:
    last = traceback.extract_tb(error.__traceback__)[-1]
    place = "/".join(Path(last.filename).parts[-2:])
    return f"{type(error).__name__}: {error} ({place}:{last.lineno})"


def main() -> None:
    """Read the spec, print the result as one line."""
    warnings.simplefilter("ignore")
    spec = json.loads(sys.argv[1])
    torch.set_num_threads(spec.get("threads", torch.get_num_threads()))
    sys.stdout.write(json.dumps(run_cell(spec)) + "\n")


if __name__ == "__main__":
    main()
