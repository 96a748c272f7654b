"""Several processes that are one run: who writes and speaks, what is gathered, and how all end when one fails.

torchrun starts them and says in RANK, WORLD_SIZE and MASTER_ADDR who each one is. Every process holds the whole model,
weigher and data, and takes its part of every micro-batch; process 0, the first, writes the folder. Without torchrun all
of this is nothing: one process, which is the first.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Callable, Iterator, Sequence
from datetime import timedelta
from typing import Any, TypeVar

import torch
from torch import Tensor

from dreamprm.errors import UserError

__all__ = [
    "average_gradients",
    "count_everywhere",
    "everyone",
    "everywhere",
    "everywhere_in_parts",
    "first_then_others",
    "from_first",
    "is_first",
    "is_split",
    "local_part",
    "mean_everywhere",
    "num_processes",
    "own_part",
    "random_state",
    "rank",
    "send_to_first",
    "set_random_state",
    "sum_everywhere",
    "together",
]

_T = TypeVar("_T")
_group: Any = torch.distributed
_WAIT = timedelta(hours=1)  # for one that does something alone: the first reads data, or writes
_LOST = ("gloo", "NCCL", "Connection closed", "Connection reset", "Broken pipe", "recvBytes", "sendBytes", "Timed out")


def num_processes() -> int:
    return _group.get_world_size() if _group.is_available() and _group.is_initialized() else 1


def rank() -> int:
    return _group.get_rank() if num_processes() > 1 else 0


def is_first() -> bool:
    """Whether this process is the one that writes."""
    return rank() == 0


@contextlib.contextmanager
def together() -> Iterator[None]:
    """The processes that torchrun has started, as one run, until the end of the `with` block.

    When one fails, it says so, in one line; the others leave with the same status and say nothing. Raises UserError
    where the environment names several processes but no place to meet.
    """
    world = os.environ.get("WORLD_SIZE", "")
    if world in ("", "1") or (_group.is_available() and _group.is_initialized()):
        yield
        return
    if not os.environ.get("MASTER_ADDR") or not os.environ.get("RANK"):
        raise UserError(
            f"started as one of {world} processes (WORLD_SIZE) without RANK or MASTER_ADDR: start them by "
            "torchrun --nproc-per-node N -m dreamprm train …, or unset WORLD_SIZE for a run in one process"
        )
    if torch.cuda.is_available():
        torch.cuda.set_device(int(os.environ.get("LOCAL_RANK", "0")) % torch.cuda.device_count())
    backend = "cpu:gloo,cuda:nccl" if torch.cuda.is_available() else "gloo"
    _group.init_process_group(backend, timeout=_WAIT)
    try:
        yield
    except Exception as error:
        raise _one_speaks(error) from error
    except KeyboardInterrupt:
        if _claim():
            raise
        raise SystemExit(130) from None
    _group.destroy_process_group()


def _one_speaks(error: Exception) -> BaseException:
    """The error, for the first process that fails; the others leave in silence."""
    if not _claim():
        return SystemExit(2)
    if isinstance(error, RuntimeError) and any(word in str(error) for word in _LOST):
        return UserError(
            "another process of this run has ended: see what it said, if anything (a killed one says nothing); go on "
            "from the last checkpoint with resume=DIR, or let torchrun do so: --max-restarts=3, with run_dir=DIR"
        )
    return error


def _claim() -> bool:
    """Whether no other process has failed before this one."""
    try:
        store = _group.distributed_c10d._get_default_store()
        attempt = os.environ.get("TORCHELASTIC_RESTART_COUNT", "0")
        return store.compare_set(f"dreamprm/failed/{attempt}", "", str(rank())) == str(rank()).encode()
    except Exception:  # the store went with the process that held it: then nobody else can be asked
        return True


def from_first(value: _T) -> _T:
    """The first process's value, in all of them."""
    if num_processes() == 1:
        return value
    held = [value]
    _group.broadcast_object_list(held, src=0)
    return held[0]


def everyone(value: _T) -> list[_T]:
    """The value of every process, in their order."""
    if num_processes() == 1:
        return [value]
    found: list[Any] = [None] * num_processes()
    _group.all_gather_object(found, value)
    return found


def first_then_others(make: Callable[[], _T]) -> _T:
    """make(), by the first process before all others, for what is kept in files once it was made."""
    made = make() if is_first() else None
    if num_processes() > 1:
        _group.barrier()
    return make() if made is None else made


def is_split(tensor: Tensor) -> bool:
    """Whether this process holds some rows of the tensor only (a DTensor, whose module takes long to import)."""
    return hasattr(tensor, "_local_tensor")


def local_part(tensor: Tensor) -> Tensor:
    """This process's rows of a split tensor, the very memory; any other tensor as it is."""
    split: Any = tensor
    return split._local_tensor if is_split(tensor) else tensor


def own_part(rows: Sequence[_T]) -> Sequence[_T]:
    """This process's rows of a batch: every N-th, so that the parts' sizes differ by one at the most."""
    return rows[rank() :: num_processes()]


def everywhere(values: Tensor) -> Tensor:
    """The values of all processes along the first dimension, without gradient; of one process alone as they are."""
    return values if num_processes() == 1 else torch.cat(everywhere_in_parts(values))


def everywhere_in_parts(values: Tensor) -> list[Tensor]:
    """The values of each process, whatever their numbers, without gradient."""
    number = num_processes()
    if number == 1:
        return [values]
    kept = values.detach().cpu()
    lengths = torch.zeros(number, dtype=torch.long)
    lengths[rank()] = len(kept)
    _group.all_reduce(lengths)
    padded = kept.new_zeros((int(lengths.max()), *kept.shape[1:]))
    padded[: len(kept)] = kept
    found = [torch.empty_like(padded) for _ in range(number)]
    _group.all_gather(found, padded)
    return [part[:length].to(values.device) for part, length in zip(found, lengths.tolist(), strict=True)]


def send_to_first(rows: Tensor, number: int) -> Tensor | None:
    """The rows of all processes, `number` together and on the CPU, for the first process; None in the others."""
    if not is_first():
        _group.send(torch.tensor(len(rows)), dst=0)
        if len(rows):
            _group.send(rows.contiguous(), dst=0)
        return None
    found = rows.new_empty((number, *rows.shape[1:]))
    found[: len(rows)] = rows
    place = len(rows)
    for other in range(1, num_processes()):
        length = torch.tensor(0)
        _group.recv(length, src=other)
        if int(length):
            _group.recv(found[place : place + int(length)], src=other)
        place += int(length)
    return found


def mean_everywhere(values: Tensor) -> Tensor:
    """The mean over the values of all processes; its gradient reaches the values of all of them."""
    if num_processes() == 1:
        return values.mean()
    function: Any = _Sum
    return function.apply(values.sum()) / count_everywhere(values.numel())


def sum_everywhere(values: Tensor) -> Tensor:
    """The sum over the processes of a tensor of one shape, without gradient."""
    if num_processes() == 1:
        return values
    total = values.detach().clone()
    _group.all_reduce(total)
    return total


def count_everywhere(number: int) -> int:
    """The sum of one whole number of each process."""
    if num_processes() == 1:
        return number
    held = torch.tensor(number)
    _group.all_reduce(held)
    return int(held)


class _Sum(torch.autograd.Function):
    """Σ over the processes. Each one's result depends on each one's value: the gradient is their sum as well."""

    @staticmethod
    def forward(ctx: Any, value: Tensor) -> Tensor:
        total = value.clone()
        _group.all_reduce(total)
        return total

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> Any:
        total = gradients[0].clone()
        _group.all_reduce(total)
        return total


def average_gradients(parameters: Sequence[Tensor]) -> None:
    """`.grad` of each becomes its mean over the processes."""
    from bilevel.lookahead import Processes

    processes = Processes()
    if processes.size > 1:
        processes.device = parameters[0].device
        processes.average_gradients(parameters)


def random_state() -> dict[str, Any]:
    """The state of torch's generators, on the CPU and on every GPU."""
    state: dict[str, Any] = {"cpu": torch.get_rng_state()}
    if torch.cuda.is_available():
        state["cuda"] = torch.cuda.get_rng_state_all()
    return state


def set_random_state(state: dict[str, Any]) -> None:
    """Put back what `random_state` took."""
    torch.set_rng_state(state["cpu"])
    if torch.cuda.is_available() and "cuda" in state:
        torch.cuda.set_rng_state_all(state["cuda"])
