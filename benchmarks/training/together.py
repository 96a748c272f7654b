"""The processes of one run: each forked as a trial is, and told who it is by the variables that torchrun sets."""

from __future__ import annotations

import signal
import socket
from collections.abc import Sequence
from functools import partial
from pathlib import Path

import torch

from benchmarks.faults.trial import start

__all__ = ["Together"]

_PATIENCE = 300.0  # seconds until one that does not end counts as hanging


class Together:
    """`dreamprm train WORDS…` in `number` processes of one thread; what they say lies below `folder`."""

    def __init__(self, number: int, words: Sequence[str], folder: Path) -> None:
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            port = free.getsockname()[1]
        common = {"WORLD_SIZE": number, "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port}
        self.children = [
            start(
                "train",
                words,
                folder,
                environment={name: str(value) for name, value in (common | {"RANK": rank, "LOCAL_RANK": rank}).items()},
                before=partial(torch.set_num_threads, 1),
            )
            for rank in range(number)
        ]

    def running(self) -> bool:
        return any(child.running() for child in self.children)

    def kill(self, ranks: Sequence[int]) -> None:
        for rank in ranks:
            self.children[rank].send(signal.SIGKILL)

    def wait(self) -> list[int | None]:
        """The exit codes; None of one that had to be ended."""
        return [child.end(_PATIENCE).code for child in self.children]

    def said(self) -> list[str]:
        """What all have written so far, by line."""
        files = [file for child in self.children for file in (child.out, child.err)]
        return [line for file in files for line in file.read_text(errors="replace").splitlines()]
