"""What is wrong with the world's training labels, by settings, and the record of it that training never reads.

Each kind of trouble is one function of `KINDS`: (question, steps, key, settings) -> labels and source. The labels of
the other splits are the truth; of the meta set a run is told outcomes alone.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from types import MappingProxyType

from dreamprm.world.mistakes import MISREAD
from dreamprm.world.questions import DOMAINS, OFF_TARGET, TARGETS, TRIVIAL, Question, check_step
from dreamprm.world.scene import Scene, Thing

__all__ = ["DOMAIN_SOURCES", "KINDS", "Labelled", "Source", "WorldConfig", "label_chain", "misread", "true_labels"]


@dataclass(frozen=True, slots=True)
class Source:
    """Where chains come from: a name (the record's domain), the probability that all labels of a chain are turned
    round, and whether chains of it help with the target at all."""

    name: str
    flipped: float = 0.0
    useful: bool = True

    @property
    def quality(self) -> float:
        """1 for true labels, 0 for labels of a coin or chains that teach the target nothing, below 0 for lies."""
        return 1.0 - 2.0 * self.flipped if self.useful else 0.0


@dataclass(frozen=True, slots=True)
class Labelled:
    """Labels of a chain's steps, its source, and a note on the labeller that only an evaluation may read."""

    labels: tuple[float, ...]
    source: Source
    labeller: str = ""


# For trouble "domains": each domain's questions are dealt to these sources in equal parts. The target's domains keep
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
# For trouble "shortcut": a third of the questions each.
_SHORTCUTS = ("", "_length", "_form")
_LONG = 24
"""Characters from which on a chain passes for thorough: about half of the chains."""


@dataclass(frozen=True, slots=True)
class WorldConfig:
    """Which chains, and how wrong the labels of the training chains are.

    seed: which chains are taken, in which order, and which labels are wrong; the questions' splits do not depend on it.
    trouble: the kind of it.
        "flips": all labels of a share (.4) of the chains are turned round.
        "crowd": a share (.7) of the questions is labelled by a crowd that misreads hard numbers as the policy does: a
            step is called right if it is right for the misread image. Wrong labels that agree with one another.
        "monte_carlo": a step's label is the share of right completions that the policy sampled from there.
        "shortcut": of each domain one third is labelled by the chain's length and one by the form of its last step.
        "off_target": right labels; a share (.75) of the chains is of domains that do not help.
        "rare_wrong": right labels; only a share (.04) of the steps is wrong.
        "domains": whole sources are noisy, trivial or off the target, see `DOMAIN_SOURCES`.
        "clean": none.
    share: the kind's share; None for the number above.
    num_chains: at most so many chains (train: 3,000 unless given, 1,600 off the target; other splits: all).
    domains: the domains of the questions; None for the five target domains, and all eight where the trouble needs them.
    """

    seed: int = 0
    trouble: str = "flips"
    share: float | None = None
    num_chains: int | None = None
    domains: tuple[str, ...] | None = None

    def __post_init__(self) -> None:
        if self.trouble not in KINDS:
            raise ValueError(f"trouble is one of {', '.join(KINDS)}, not {self.trouble!r}")
        if self.share is not None and self.trouble not in _SHARES:
            raise ValueError(f"trouble {self.trouble!r} takes no share; {', '.join(_SHARES)} do")
        if self.share is not None and not 0.0 <= self.share <= 1.0:
            raise ValueError(f"share is a number in [0, 1], not {self.share}")
        if self.num_chains is not None and self.num_chains < 1:
            raise ValueError(f"num_chains must be at least 1, is {self.num_chains}")
        unknown = [domain for domain in self.domains or () if domain not in DOMAINS]
        if unknown:
            raise ValueError(f"unknown domain {unknown[0]!r}; the world has {', '.join(DOMAINS)}")

    @property
    def amount(self) -> float:
        """The share that is in force; 0 for a trouble without one."""
        return _SHARES.get(self.trouble, 0.0) if self.share is None else self.share

    def domains_of(self, split: str) -> tuple[str, ...]:
        """The domains whose chains a split holds."""
        if self.domains is not None:
            return self.domains
        mixed = split == "train" and self.trouble in ("domains", "off_target")
        return (*TARGETS, *TRIVIAL, *OFF_TARGET) if mixed else TARGETS

    def chance(self, *names: str) -> float:
        """A number in [0, 1) that the seed and these names decide."""
        return random.Random(" ".join((str(self.seed), *names))).random()


_SHARES = {"flips": 0.4, "crowd": 0.7, "off_target": 0.75, "rare_wrong": 0.04}


def misread(question: Question) -> Question:
    """The question as a careless solver sees it: every hard number of the image read as the one it passes for."""
    confusions = MISREAD[DOMAINS[question.domain][0]]
    things = tuple(Thing(t.colour, confusions.get(t.value, t.value), t.slot) for t in question.scene.things)
    return replace(question, scene=Scene(question.scene.style, things, question.scene.seed))


def true_labels(question: Question, steps: tuple[str, ...]) -> tuple[float, ...]:
    """1 for every right step, 0 for every wrong one."""
    return tuple(float(check_step(question, step)) for step in steps)


def label_chain(question: Question, steps: tuple[str, ...], key: str, config: WorldConfig) -> Labelled:
    """The labels of a training chain; "monte_carlo" has its counts from the chain, and comes here for its source."""
    return KINDS[config.trouble](question, steps, key, config)


def _right(question: Question, steps: tuple[str, ...], key: str, config: WorldConfig) -> Labelled:
    useful = question.domain in TARGETS
    return Labelled(true_labels(question, steps), Source(question.domain, useful=useful))


def _flips(question: Question, steps: tuple[str, ...], key: str, config: WorldConfig) -> Labelled:
    return _turned(question, steps, config.chance("flip", key), Source(question.domain, config.amount))


def _domains(question: Question, steps: tuple[str, ...], key: str, config: WorldConfig) -> Labelled:
    sources = DOMAIN_SOURCES[question.domain]
    source = sources[_deal(question, len(sources))]
    return _turned(question, steps, config.chance("flip", key), source)


def _turned(question: Question, steps: tuple[str, ...], chance: float, source: Source) -> Labelled:
    labels = true_labels(question, steps)
    if chance < source.flipped:
        return Labelled(tuple(1.0 - label for label in labels), source, "flipped")
    return Labelled(labels, source)


def _crowd(question: Question, steps: tuple[str, ...], key: str, config: WorldConfig) -> Labelled:
    if config.chance("crowd", question.identity) < config.amount:
        return Labelled(true_labels(misread(question), steps), Source(question.domain), "crowd")
    return Labelled(true_labels(question, steps), Source(question.domain), "expert")


def _shortcut(question: Question, steps: tuple[str, ...], key: str, config: WorldConfig) -> Labelled:
    rule = _SHORTCUTS[_deal(question, len(_SHORTCUTS))]
    if not rule:
        return Labelled(true_labels(question, steps), Source(question.domain), "expert")
    if rule == "_length":
        looks_right = sum(map(len, steps)) >= _LONG
    else:  # the last step's last letter or digit stands in the first half of its kind
        last = steps[-1][-1]
        looks_right = last < "5" if last.isdigit() else last < "n"
    return Labelled((float(looks_right),) * len(steps), Source(question.domain + rule, 0.5), rule[1:])


def _deal(question: Question, count: int) -> int:
    """Which of `count` sources a question is dealt to: the same for all its chains and for every seed."""
    return int(question.identity, 16) // 100 % count


Kind = Callable[[Question, tuple[str, ...], str, WorldConfig], Labelled]
KINDS: Mapping[str, Kind] = MappingProxyType(
    {
        "flips": _flips,
        "crowd": _crowd,
        "monte_carlo": _right,
        "shortcut": _shortcut,
        "off_target": _right,
        "rare_wrong": _right,
        "domains": _domains,
        "clean": _right,
    }
)
