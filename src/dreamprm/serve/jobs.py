"""What the server is asked to do, and one thread that does it: whatever waits is read in batches, across requests.

The model is touched by this thread alone. A job that cannot be done fails by itself and leaves the others of its batch.
"""

from __future__ import annotations

import queue
import threading
import time
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from dataclasses import dataclass, field, replace
from typing import Any

import torch

from dreamprm.data.record import Record, RecordError
from dreamprm.prm import PRM, Batch, Collator
from dreamprm.prm.collate import Encoded

__all__ = ["Busy", "Job", "RecordJob", "Refused", "TokenJob", "Worker", "encode_ids"]


class Refused(ValueError):
    """What a client asked for cannot be done; the text says what to change."""


class Busy(RuntimeError):
    """As many chains are waiting as may; ask again later."""


@dataclass(eq=False)
class RecordJob:
    """Chains of one question. `done` gives the probability that each step is right, one list per chain."""

    records: Sequence[Record]
    done: Future[Any] = field(default_factory=Future)

    @property
    def num_chains(self) -> int:
        return len(self.records)


@dataclass(eq=False)
class TokenJob:
    """Prompts. `done` gives the log-odds at every token, one tensor (T,) per prompt.

    prepare: makes them, in the worker's thread, since tokenizers are no more safe between threads than models.
    """

    num_chains: int
    prepare: Callable[[Collator], list[Encoded]]
    prompts: list[Encoded] = field(default_factory=list)
    done: Future[Any] = field(default_factory=Future)


Job = RecordJob | TokenJob


def encode_ids(ids: Sequence[int]) -> Encoded:
    """A prompt of token ids as the processor would give it."""
    row = torch.tensor(list(ids))
    return Encoded({"input_ids": row, "attention_mask": torch.ones_like(row)}, {}, [])


class Worker:
    """Takes jobs from `submit` and does them in its thread, up to `batch_size` chains at a time.

    max_waiting: chains that may wait; more are refused as `Busy`.  max_tokens: of one chain.  observe: is told
    (chains, seconds) of every batch that was read.
    """

    def __init__(
        self, prm: PRM, *, batch_size: int, max_waiting: int, max_tokens: int, observe: Any = lambda *numbers: None
    ) -> None:
        self.prm, self.batch_size, self.max_waiting, self.max_tokens = prm.eval(), batch_size, max_waiting, max_tokens
        self.observe = observe
        self.waiting = 0
        self._jobs: queue.SimpleQueue[Job | None] = queue.SimpleQueue()
        self._lock = threading.Lock()
        self._collate: Collator = replace(prm.collator(), max_length=max_tokens)
        self._thread = threading.Thread(target=self._run, name="scorer", daemon=True)
        self._thread.start()

    @property
    def alive(self) -> bool:
        return self._thread.is_alive()

    def submit(self, job: Job) -> Future[Any]:
        """Raises Busy where too many chains wait already."""
        with self._lock:
            if self.waiting and self.waiting + job.num_chains > self.max_waiting:
                raise Busy(f"{self.waiting} chains are waiting, {self.max_waiting} may; ask again later")
            self.waiting += job.num_chains
        self._jobs.put(job)
        return job.done

    def stop(self) -> None:
        """Do what waits, then end."""
        self._jobs.put(None)
        self._thread.join()

    def _run(self) -> None:
        while True:
            jobs = self._next()
            chosen = [job for job in jobs if job is not None and job.done.set_running_or_notify_cancel()]
            if chosen:
                self._do(chosen)
            with self._lock:
                self.waiting -= sum(job.num_chains for job in jobs if job is not None)
            if None in jobs:
                return

    def _next(self) -> list[Job | None]:
        """The next job, and those that wait behind it while they fit into a batch."""
        jobs = [self._jobs.get()]
        size = jobs[0].num_chains if jobs[0] is not None else 0
        while jobs[-1] is not None and size < self.batch_size:
            try:
                job = self._jobs.get_nowait()
            except queue.Empty:
                break
            jobs.append(job)
            size += job.num_chains if job is not None else 0
        return jobs

    def _do(self, jobs: Sequence[Job]) -> None:
        for kind, read in ((RecordJob, self._read_records), (TokenJob, self._read_tokens)):
            mine: list[Any] = [job for job in jobs if isinstance(job, kind)]
            usable = [job for job in mine if self._fits(job)]
            if usable:
                self._together(usable, read)

    def _together(self, jobs: list[Any], read: Any) -> None:
        """All of them in one pass; where that fails, one by one, so that only the guilty one does."""
        began = time.monotonic()
        try:
            found = read(jobs)
        except Exception as error:
            if len(jobs) > 1:
                for job in jobs:
                    self._together([job], read)
                return
            jobs[0].done.set_exception(error)
            return
        self.observe(sum(job.num_chains for job in jobs), time.monotonic() - began)
        for job, values in zip(jobs, found):
            job.done.set_result(values)

    def _fits(self, job: Job) -> bool:
        """Whether a job can be done; it is told why where it cannot."""
        try:
            if isinstance(job, RecordJob):
                for record in job.records:
                    self._collate.encode(record)
                return True
            job.prompts = job.prepare(self._collate)
            for prompt in job.prompts:
                if (length := len(prompt.sequences["input_ids"])) > self.max_tokens:
                    raise Refused(f"{length} tokens; this server allows {self.max_tokens}")
            return True
        except RecordError as error:
            job.done.set_exception(Refused(": ".join(part for part in (error.field, error.reason) if part)))
        except Exception as error:
            job.done.set_exception(error)
        return False

    def _read_records(self, jobs: Sequence[RecordJob]) -> list[list[list[float]]]:
        records = [record for job in jobs for record in job.records]
        scores = iter(self.prm.score_records(records, self.batch_size))
        return [[next(scores) for _ in job.records] for job in jobs]

    @torch.inference_mode()
    def _read_tokens(self, jobs: Sequence[TokenJob]) -> list[list[torch.Tensor]]:
        prompts = [prompt for job in jobs for prompt in job.prompts]
        order = sorted(range(len(prompts)), key=lambda row: len(prompts[row].sequences["input_ids"]))
        values: dict[int, torch.Tensor] = {}
        for start in range(0, len(order), self.batch_size):
            rows = order[start : start + self.batch_size]
            found = self.prm(self._every_token([prompts[row] for row in rows]).to(self.prm.device)).cpu()
            values |= {row: line[: len(prompts[row].sequences["input_ids"])] for row, line in zip(rows, found)}
        every = iter(values[row] for row in range(len(prompts)))
        return [[next(every) for _ in job.prompts] for job in jobs]

    def _every_token(self, prompts: Sequence[Encoded]) -> Batch:
        """A batch whose every token is judged, as if it ended a step."""
        inputs = self._collate.join(prompts)
        rows, length = inputs["input_ids"].shape
        nothing = torch.zeros(rows, length)
        return Batch(
            inputs=inputs,
            step_positions=torch.arange(length).expand(rows, length),
            step_mask=inputs["attention_mask"].bool(),
            labels=nothing,
            label_mask=nothing.bool(),
            correct=torch.full((rows,), torch.nan),
            index=torch.full((rows,), -1),
            domain=torch.full((rows,), -1),
            keys=[""] * rows,
        )
