"""How good the world's training labels are, by settings, and the record of it that training never reads."""

from __future__ import annotations

import random
from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType

from dreamprm.choices import Labels, Noise, one_of
from dreamprm.world.questions import DOMAINS, OFF_TARGET, TARGETS, TRIVIAL

__all__ = ["DOMAIN_SOURCES", "Source", "WorldConfig"]


@dataclass(frozen=True, slots=True)
class Source:
    """Where chains of a domain come from: a name, and the probability that all labels of a chain are turned round."""

    name: str
    flipped: float
    useful: bool = True

    @property
    def quality(self) -> float:
        """1 for true labels, 0 for labels of a coin or chains that teach the target nothing, below 0 for lies."""
        return 1.0 - 2.0 * self.flipped if self.useful else 0.0


# For noise "domains": each domain's questions are dealt to these sources in equal parts. The target's domains keep
# their names in their good source, so that meta and test chains are of known domains.
DOMAIN_SOURCES: Mapping[str, tuple[Source, ...]] = MappingProxyType(
    {
        "count": (Source("count", 0.0), Source("count_crowd", 0.6)),
        "chart": (Source("chart", 0.05), Source("chart_web", 0.5)),
        "table": (Source("table", 0.1), Source("table_scan", 0.7)),
        "compute": (Source("compute", 0.0), Source("compute_forum", 0.5)),
        "compare": (Source("compare", 0.1), Source("compare_old", 0.7)),
        "presence": (Source("presence", 0.0, useful=False),),
        "succession": (Source("succession", 0.0, useful=False),),
        "order": (Source("order", 0.5, useful=False),),
    }
)


@dataclass(frozen=True, slots=True)
class WorldConfig:
    """Which chains, and how wrong their labels are.

    seed: which chains are taken, in which order, and which labels are wrong; the questions' splits do not depend on it.
    noise: "examples": each training chain has all its labels turned round with probability `flipped`, in all domains
        alike. "domains": by source, see `DOMAIN_SOURCES`; trivial and off-target domains are among them. "clean": none.
    num_chains: at most so many chains (train: 3,000 unless given; other splits: all).
    domains: the domains of the questions, else the five target domains (all eight for training with noise "domains").
    labels: "checked": 0 or 1 by the exact checker. "monte_carlo": the share of right completions the policy sampled
        from each prefix (training chains only).
    Only the split "train" is noisy.
    """

    seed: int = 0
    noise: str = Noise.examples
    flipped: float = 0.4
    num_chains: int | None = None
    domains: tuple[str, ...] | None = None
    labels: str = Labels.checked

    def __post_init__(self) -> None:
        one_of(self.noise, Noise, "noise")
        one_of(self.labels, Labels, "kind of labels")
        if not 0.0 <= self.flipped <= 1.0:
            raise ValueError(f"flipped is a probability in [0, 1], not {self.flipped}")
        if self.num_chains is not None and self.num_chains < 1:
            raise ValueError(f"num_chains must be at least 1, is {self.num_chains}")
        unknown = [domain for domain in self.domains or () if domain not in DOMAINS]
        if unknown:
            raise ValueError(f"unknown domain {unknown[0]!r}; the world has {', '.join(DOMAINS)}")

    def domains_of(self, split: str) -> tuple[str, ...]:
        """The domains whose chains a split holds."""
        if self.domains is not None:
            return self.domains
        return (*TARGETS, *TRIVIAL, *OFF_TARGET) if split == "train" and self.noise == "domains" else TARGETS

    def source_of(self, domain: str, identity: str, split: str) -> Source:
        """The source of a question: the same for all chains of a question and for every seed."""
        if split != "train" or self.noise == "clean":
            return Source(domain, 0.0)
        if self.noise == "examples":
            return Source(domain, self.flipped)
        sources = DOMAIN_SOURCES[domain]
        return sources[int(identity, 16) // 100 % len(sources)]

    def is_flipped(self, source: Source, key: str) -> bool:
        """Whether all labels of a chain are turned round; depends on the seed and the chain's key alone."""
        return random.Random(f"flip {self.seed} {key}").random() < source.flipped
