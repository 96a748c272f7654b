"""Monte-Carlo labels: how often the policy still reaches the right answer from each prefix of a chain."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from dreamprm.data.record import Record
from dreamprm.policy.sampling import Policy, Prefix

__all__ = ["StepCounts", "monte_carlo"]


@dataclass(frozen=True, slots=True)
class StepCounts:
    """Per step of a chain: right completions from the prefix that ends with it, out of `total`."""

    right: tuple[int, ...]
    total: int

    @property
    def labels(self) -> tuple[float, ...]:
        """p_i = right completions / all completions, in [0, 1]; VisualPRM's hard label is p_i > 0."""
        return tuple(count / self.total for count in self.right)


def monte_carlo(
    policy: Policy,
    records: Sequence[Record],
    is_right: Callable[[Record, str], bool],
    num: int = 8,
    *,
    separator: str = "\n",
    seed: int = 0,
) -> list[StepCounts]:
    """Sample `num` completions from every prefix of every chain and count those that end right.

    p_i = (1/num) Σ_k [completion k of (question, steps 1..i) is right]. The whole chain needs no sample: its last
    count is 0 or `num`. `separator` joins steps as the policy writes them. is_right judges a whole response.
    Equal prefixes of different chains are sampled once. Source: Math-Shepherd (arXiv 2312.08935), eq. 4.
    """
    prefixes: dict[tuple[str, str], Prefix] = {}
    owner: dict[tuple[str, str], Record] = {}
    for record in records:
        for stop in range(1, len(record.steps)):
            name = record.group, separator.join(record.steps[:stop]) + separator
            prefixes.setdefault(name, Prefix(record.question, record.images, name[1]))
            owner.setdefault(name, record)
    counts: dict[tuple[str, str], int] = {}
    for name, responses in zip(prefixes, policy.sample(list(prefixes.values()), num, seed=seed)):
        counts[name] = sum(is_right(owner[name], response) for response in responses)
    results = []
    for record in records:
        texts = [separator.join(record.steps[:stop]) + separator for stop in range(1, len(record.steps))]
        whole = num if is_right(record, separator.join(record.steps)) else 0
        results.append(StepCounts((*(counts[record.group, text] for text in texts), whole), num))
    return results
