"""Everything a run is made of, and what of it a checkpoint holds."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from bilevel.spans import span
from dreamprm.config.schema import TrainConfig
from dreamprm.data.record import Record
from dreamprm.distributed import everyone, local_part, own_part, random_state, rank, set_random_state
from dreamprm.errors import UserError
from dreamprm.metrics import PhaseName
from dreamprm.phases.phase import pieces
from dreamprm.phases.sharding import Skeleton, empty_like, laid_out, laid_out_state, of_rows, refuse_uneven
from dreamprm.phases.trust_plan import trust_samples, trust_updates
from dreamprm.prm.collate import Batch, Collator
from dreamprm.profiling import Profile
from dreamprm.run_files.history import WeightHistory
from dreamprm.sources import DenseLoss
from dreamprm.sources.prefetch import Prefetch
from dreamprm.sources.sampler import EpochSampler
from dreamprm.weigher import Weigher

if TYPE_CHECKING:
    from dreamprm.phases.phase import Phase
    from dreamprm.prm.model import PRM

__all__ = ["Counters", "Judged", "Run"]


@dataclass
class Counters:
    """Numbers that go on over a resume and end up in results.json.

    seconds: by phase.  check_error, sum_rule: the engine's last comparison with autograd, and its largest residual of
    the sum rule.  sureness: α of the two judges of weigher=trust, on the half of the meta set that they have not seen.
    profile: by phase, what `profile=true` has measured, see `Profile`.
    """

    skipped_outer: int = 0
    skipped_in_a_row: int = 0
    outer_updates: int = 0
    seconds: dict[str, float] = field(default_factory=dict)
    check_error: float | None = None
    sum_rule: float | None = None
    sureness: list[float | None] = field(default_factory=lambda: [None, None])
    profile: dict[str, Any] = field(default_factory=dict)


@dataclass
class Judged:
    """The PRM at one moment of the run.

    meta_losses, meta_scores: of every meta chain, its outer loss and its chain score.  test_scores: of the test
    chains.  figures: those of the test set, as results.json has them.

    meta_steps, test_steps: the step scores themselves; a checkpoint holds the test set's only.
    """

    meta_losses: list[float]
    meta_scores: list[float]
    test_scores: list[float]
    figures: dict[str, Any]
    meta_steps: list[list[float]] = field(default_factory=list)
    test_steps: list[list[float]] = field(default_factory=list)

    def state_dict(self) -> dict[str, Any]:
        return {name: value for name, value in vars(self).items() if name != "meta_steps"}


@dataclass
class Run:
    """The objects of one run.

    What it was asked: settings, folder, device.
    Its models: prm, weigher; dense_loss, where the source has dense targets; `collator` knows the training domains,
        `judge` makes batches of chains from anywhere (meta, test, cold start).
    Its data: train, meta, test, cold; samplers, which draw from them.
    history: what becomes of single examples, where the run keeps that.
    How it is split: skeleton, where each process holds its rows of the PRM only, see sharding.py.
    Where it stands: update, which counts the cold start's first, then those of weigher=trust, then the bilevel ones;
        phase, made when its first update is due; counters; fresh and start, the trained parameters before and after
        the cold start where weigher=trust goes back to them; before, the judgement of the PRM that the bilevel phase
        began with.
    What its checkpoints remember besides: digests of the data, and of what the model was read from; changes of settings
        at resumes; num_metrics rows written when the checkpoint was that it went on from; see resume.py.
    What looks on: profile, with `profile=true`.  What works beside it: ahead, which encodes the next update's chains.
    """

    settings: TrainConfig
    folder: Path
    device: torch.device

    prm: PRM
    weigher: Weigher
    collator: Collator
    judge: Collator
    dense_loss: DenseLoss | None

    train: Sequence[Record]
    meta: Sequence[Record]
    test: Sequence[Record]
    cold: Sequence[Record]
    samplers: dict[str, EpochSampler] = field(init=False)

    skeleton: Skeleton | None = None

    update: int = 0
    phase: Phase | None = None
    counters: Counters = field(default_factory=Counters)
    before: Judged | None = None
    history: WeightHistory | None = None
    fresh: dict[str, Tensor] = field(default_factory=dict)
    start: dict[str, Tensor] | None = None

    digests: dict[str, dict[str, str]] = field(default_factory=dict)
    model_digests: dict[str, str] = field(default_factory=dict)
    changes: list[dict[str, Any]] = field(default_factory=list)
    num_metrics: int = 0

    profile: Profile | None = None
    ahead: Prefetch = field(init=False, default_factory=Prefetch)

    def __post_init__(self) -> None:
        sizes = {"cold": len(self.cold), "inner": len(self.train), "outer": len(self.meta)}
        sizes |= trust_samples(self.settings, self.train, self.meta)
        if self.num_trust:
            self.fresh = {name: value.detach().clone() for name, value in self.trainable().items()}
        groups = {"outer": [record.group for record in self.meta]} if self.settings.outer.by_question else {}
        self.samplers = {
            name: EpochSampler(size, seed=self.settings.seed * 10 + place, groups=groups.get(name))
            for place, (name, size) in enumerate(sizes.items())
            if size
        }

    @property
    def num_cold(self) -> int:
        return self.settings.cold.updates

    @property
    def trust_updates(self) -> tuple[int, int]:
        """Of the looks of weigher=trust, and of each of its two judges."""
        return trust_updates(self.settings, len(self.train))

    @property
    def num_trust(self) -> int:
        looks, judge = self.trust_updates
        return looks + 2 * judge

    @property
    def num_before(self) -> int:
        """Updates before the bilevel phase."""
        return self.num_cold + self.num_trust

    @property
    def num_updates(self) -> int:
        return self.num_before + self.settings.inner.updates

    @property
    def phase_name(self) -> PhaseName:
        """The phase of the next update."""
        if self.update < self.num_cold:
            return PhaseName.COLD
        return PhaseName.TRUST if self.update < self.num_before else PhaseName.BILEVEL

    @property
    def learns_weights(self) -> bool:
        return any(parameter.requires_grad for parameter in self.weigher.parameters())

    @property
    def is_split(self) -> bool:
        """Whether each process holds its rows of the PRM only."""
        return self.skeleton is not None

    def trainable(self) -> dict[str, nn.Parameter]:
        return {name: value for name, value in self.prm.named_parameters() if value.requires_grad}

    @torch.no_grad()
    def put(self, parameters: Mapping[str, Tensor]) -> None:
        """Set the trained parameters to these values; of a split model each process takes its rows of them."""
        own = self.trainable()
        for name, value in parameters.items():
            local_part(own[name]).copy_(local_part(laid_out(value, own[name])))

    def draw(
        self, name: str, records: Sequence[Record], size: int, number: int = 1, *, among: Sequence[int] | None = None
    ) -> list[list[int]]:
        """Rows of a sampler's next micro-batches, of `records` or `among` them; those after are encoded meanwhile."""
        sampler, total = self.samplers[name], size * number
        places = [*sampler.draw(total), *sampler.peek(total if self.settings.prefetch else 0)]
        micros = list(pieces(places if among is None else [among[place] for place in places], size))
        for rows in micros if self.settings.prefetch else ():
            self.ahead.expect(self._collator_of(records), records, own_part(rows))
        return micros[:number]

    def batch(self, records: Sequence[Record], rows: Sequence[int]) -> Batch:
        with span("data"):
            collate = self._collator_of(records)
            found = [self.ahead.take(collate, records, row) for row in rows]
            batch = collate.batch(rows, [record for record, _ in found], [encoded for _, encoded in found])
            if self.is_split and self.prm.training:
                refuse_uneven(batch)
            if self.profile is not None:
                self.profile.count(batch.inputs["attention_mask"])
            if self.device.type == "cuda":
                return batch.pinned().to(self.device, non_blocking=True)
            return batch.to(self.device)

    def _collator_of(self, records: Sequence[Record]) -> Collator:
        return self.collator if records is self.train else self.judge

    def autocast(self) -> torch.autocast:
        """bf16 over fp32 parameters where `precision` says so; else it does nothing."""
        return torch.autocast(self.device.type, dtype=torch.bfloat16, enabled=self.settings.precision.name == "bf16")

    def state_dict(self) -> dict[str, Any]:
        """What a checkpoint holds. Frozen parameters are not in it: they are read from where they came from."""
        weigher = dict(self.weigher.state_dict())
        optimizers = {name: one.state_dict() for name, one in self._optimizers().items()}
        if self.weigher.rows is not None:
            weigher, optimizers = of_rows(self.weigher.rows.spread, weigher, optimizers)
        return {
            "update": self.update,
            "phase": "" if self.phase is None else self.phase.name.value,
            "parameters": {name: value.detach() for name, value in self.trainable().items()},
            "buffers": {name: value for name, value in self.prm.named_buffers() if _persists(self.prm, name)},
            "weigher": weigher,
            "optimizers": optimizers,
            "samplers": {name: sampler.state_dict() for name, sampler in self.samplers.items()},
            "counters": vars(self.counters),
            "start": self.start,
            "before": None if self.before is None else self.before.state_dict(),
            # The dropout masks of every process, the first one's first.
            "random": everyone(random_state()),
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Put a checkpoint's state back. Optimizers only where they are of its phase: the next one starts afresh."""
        own = self.trainable()
        if set(own) != set(state["parameters"]):
            odd = sorted(set(own) ^ set(state["parameters"]))
            raise UserError(f"the checkpoint's parameters are not this model's: {', '.join(odd[:5])} differ")
        buffers = dict(self.prm.named_buffers())
        self.put(state["parameters"])
        self.start = state.get("start")
        with torch.no_grad():
            for name, value in state["buffers"].items():
                buffers[name].copy_(value)
        weigher, optimizers = state["weigher"], state["optimizers"]
        if self.weigher.rows is not None:
            weigher, optimizers = of_rows(self.weigher.rows.own, weigher, optimizers)
        self.weigher.load_state_dict(weigher)
        if self.phase is not None and state["phase"] == self.phase.name:
            for name, optimizer in self._optimizers().items():
                optimizer.load_state_dict(laid_out_state(optimizers[name], optimizer))
        for name, sampler in self.samplers.items():
            sampler.load_state_dict(state["samplers"][name])
        self.counters = Counters(**state["counters"])
        self.before = None if state["before"] is None else Judged(**state["before"])
        self.update = state["update"]
        random = state["random"] if isinstance(state["random"], list) else [state["random"]]  # of an earlier version
        if rank() < len(random):
            set_random_state(random[rank()])
        else:  # there are more processes than before: they begin streams of their own
            torch.manual_seed(self.settings.seed + 1_000_003 * (rank() + 1_009 * self.update))

    def empty(self, place: str, shape: torch.Size, *, dtype: torch.dtype) -> Tensor:
        """What a checkpoint's split tensor is read into: this process's rows, where it holds some only, else all."""
        whole = torch.empty
        if place.startswith(("/weigher", "/optimizers/outer")):
            rows = self.weigher.rows
            return whole(shape, dtype=dtype) if rows is None else rows.empty(shape, dtype)
        split = next(iter(self.trainable().values())) if self.is_split else None
        return whole(shape, dtype=dtype) if split is None else empty_like(split, shape, dtype)

    def _optimizers(self) -> dict[str, torch.optim.Optimizer]:
        return {} if self.phase is None else self.phase.optimizers


def _persists(module: nn.Module, name: str) -> bool:
    place, _, leaf = name.rpartition(".")
    return leaf not in module.get_submodule(place)._non_persistent_buffers_set
