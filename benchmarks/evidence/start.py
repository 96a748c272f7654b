"""Where all methods of a (trouble, seed) start: a PRM cold-started on the troubled pool itself, and what lies below its
last layer, computed once.

After the cold start everything but the last layer, the final norm and the verdict's direction stays as it is, so that
one method is a matter of seconds: a chain's hidden states before the last layer are all that is needed of it.

Shapes: N chains, S steps, T tokens, D hidden width.
"""

from __future__ import annotations

import itertools
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from dreamprm.data.record import Record
from dreamprm.loss import example_losses
from dreamprm.prm import PRM
from dreamprm.trainer.sampler import EpochSampler
from dreamprm.world import base_folder, check_disjoint, dense_batch, dense_examples, dense_loss, load

__all__ = ["Chains", "Start", "load_start", "make_start"]

UPDATES, BATCH, LR, DENSE_BATCH, DENSE_WEIGHT = 240, 64, 1e-3, 32, 0.5


@dataclass
class Chains:
    """hidden: (N, T, D) before the last layer.  positions, mask, labels, truth: (N, S); labels of the meta set are NaN
    and `truth` is for the report alone.  correct: (N,).  question, answer, domain: indices, (N,)."""

    hidden: Tensor
    length: Tensor
    positions: Tensor
    mask: Tensor
    labels: Tensor
    truth: Tensor
    correct: Tensor
    question: Tensor
    answer: Tensor
    domain: Tensor

    def __len__(self) -> int:
        return len(self.correct)

    @property
    def wrong(self) -> Tensor:
        """(N, S): steps whose label lies on the wrong side of one half."""
        return ((self.labels > 0.5) != (self.truth > 0.5)) & self.mask

    def take(self, rows: Tensor) -> Chains:
        """These chains, no longer than they need to be."""
        length, steps = int(self.length[rows].max()), int(self.mask[rows].sum(1).max())
        wide = ("positions", "mask", "labels", "truth")
        parts: dict[str, Tensor] = {name: getattr(self, name)[rows][:, :steps] for name in wide}
        rest = ("length", "correct", "question", "answer", "domain")
        return Chains(self.hidden[rows][:, :length], **parts, **{name: getattr(self, name)[rows] for name in rest})


@dataclass
class Start:
    """A cold-started PRM's last layer (see `judge.Judge`) and the chains as it sees them."""

    trouble: str
    seed: int
    layer: dict[str, Tensor]
    train: Chains
    meta: Chains
    judged: Chains
    num_domains: int
    seconds: float


def cold_start(records: list[Record], seed: int, updates: int) -> PRM:
    """The base, trained on the labels of these chains with captions and solutions beside them; the tower is frozen."""
    torch.manual_seed(seed)
    prm: Any = PRM.from_pretrained(base_folder())
    prm.freeze_vision(cache=True)
    prm.train()
    collate = prm.collator(cache=len(records))
    parameters = [value for value in prm.parameters() if value.requires_grad]
    optimizer = torch.optim.AdamW(parameters, lr=LR, weight_decay=0.01)
    rates = torch.optim.lr_scheduler.OneCycleLR(
        optimizer, LR, total_steps=updates, pct_start=0.05, cycle_momentum=False
    )
    sampler, dense = EpochSampler(len(records), seed=seed), dense_examples(seed)
    for _ in range(updates):
        batch = collate([records[row] for row in sampler.draw(BATCH)])
        optimizer.zero_grad()
        example_losses(prm(batch), batch).mean().backward()
        described = dense_batch(prm.processor, list(itertools.islice(dense, DENSE_BATCH)))
        (DENSE_WEIGHT * dense_loss(prm.transformer, described)).backward()
        torch.nn.utils.clip_grad_norm_(parameters, 1.0)
        optimizer.step()
        rates.step()
    return prm.eval()


@torch.no_grad()
def encode(prm: Any, records: list[Record], domains: dict[str, int], batch_size: int = 128) -> Chains:
    """The hidden states of these chains before the last layer, and what is known of them."""
    kept: list[Tensor] = []

    def keep(layer: Any, given: tuple[Any, ...], named: dict[str, Any]) -> None:
        kept.append((given[0] if given else named["hidden_states"]).detach())

    hook = prm.body.language_model.layers[-1].register_forward_pre_hook(keep, with_kwargs=True)
    collate, num = prm.collator(), len(records)
    steps = max(len(record.steps) for record in records)
    width = max(len(collate([record]).inputs["input_ids"][0]) for record in sorted(records, key=_size)[-8:])
    hidden = torch.zeros(num, width, prm.body.config.text_config.hidden_size)
    length, positions = torch.zeros(num, dtype=torch.long), torch.zeros(num, steps, dtype=torch.long)
    order = sorted(range(num), key=lambda row: _size(records[row]))
    try:
        for first in range(0, num, batch_size):
            rows = torch.tensor(order[first : first + batch_size])
            batch = collate([records[row] for row in rows.tolist()])
            prm(batch)
            states = kept.pop()
            hidden[rows, : states.shape[1]] = states
            length[rows] = batch.inputs["attention_mask"].sum(1)
            positions[rows, : batch.step_positions.shape[1]] = batch.step_positions
    finally:
        hook.remove()

    def padded(values: list[tuple[Any, ...]], empty: float) -> Tensor:
        return torch.tensor([[*map(float, row), *[empty] * (steps - len(row))] for row in values])

    questions: dict[str, int] = {}
    answers: dict[Any, int] = {}
    return Chains(
        hidden=hidden,
        length=length,
        positions=positions,
        mask=torch.arange(steps) < torch.tensor([len(record.steps) for record in records])[:, None],
        labels=padded([record.labels or (float("nan"),) * len(record.steps) for record in records], 0.0),
        truth=padded([record.truth["labels"] for record in records], 0.0),
        correct=torch.tensor([float(bool(record.correct)) for record in records]),
        question=torch.tensor([questions.setdefault(record.group, len(questions)) for record in records]),
        answer=torch.tensor([answers.setdefault(record.answer, len(answers)) for record in records]),
        domain=torch.tensor([domains.get(record.domain, -1) for record in records]),
    )


def _size(record: Record) -> int:
    return len(record.question.split()) + sum(len(step.split()) + 4 for step in record.steps)


def make_start(trouble: str, seed: int, judged: str, updates: int = UPDATES) -> Start:
    """The cold start on the pool of a trouble, and every chain below its last layer."""
    import time

    from benchmarks.evidence.judge import last_layer

    began = time.process_time()
    train, meta, test = load("train", trouble=trouble, seed=seed), load("meta"), load(judged)
    check_disjoint(
        **{name: {r.group for r in part} for name, part in (("train", train), ("meta", meta), (judged, test))}
    )
    domains = {name: place for place, name in enumerate(sorted({record.domain for record in train}))}
    prm = cold_start(train, seed, updates)
    parts = [encode(prm, records, domains) for records in (train, meta, test)]
    return Start(trouble, seed, last_layer(prm), *parts, len(domains), time.process_time() - began)


def load_start(path: Path, trouble: str, seed: int, judged: str) -> Start:
    """The start of a file, made and written where there is none yet."""
    if not path.is_file():
        path.parent.mkdir(parents=True, exist_ok=True)
        part = path.with_suffix(f".{trouble}{seed}.part")
        torch.save(vars(make_start(trouble, seed, judged)), part)
        part.replace(path)
    found = torch.load(path, weights_only=False)
    return Start(**found)
