"""Sample the world's chains from its policy, with Monte-Carlo counts, into the shipped file.

    python -m dreamprm.world.build_chains --out chains.parquet      # some minutes on two cores

Questions are drawn per split and domain (the splits share none, see questions.py); the tiny InternVL of
`base_folder()`, sampled at temperature 1, answers each several times; training chains also get completions from
each of their prefixes. Deterministic for a seed, a model and a version of torch.
"""

from __future__ import annotations

import argparse
import random
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import torch
from transformers import AutoModelForImageTextToText, AutoProcessor

from dreamprm.data.record import Record
from dreamprm.policy import Policy, Prefix, monte_carlo
from dreamprm.world.base_model import base_folder
from dreamprm.world.questions import (
    DOMAINS,
    TARGETS,
    Question,
    check_answer,
    check_disjoint,
    sample_question,
    split_steps,
)
from dreamprm.world.scene import draw
from dreamprm.world.splits import CHAINS, Chain, write_chains

__all__ = ["PLAN", "Share", "build_chains", "main", "sample_questions"]


@dataclass(frozen=True, slots=True)
class Share:
    """How many questions of each target domain and of each other domain a split has, and how many chains of each.

    draw: added to the seed of the questions, for questions that no earlier draw of the split has shown to anyone.
    """

    num_target: int
    num_other: int
    num_chains: int
    draw: int = 0


PLAN: dict[str, Share] = {
    "train": Share(600, 200, 2),
    "cold": Share(900, 0, 2),
    "meta": Share(50, 0, 4),
    # Settings are chosen on the validation questions. The test questions are a second draw: the first was looked at.
    "validation": Share(60, 0, 8),
    "test": Share(60, 0, 8, draw=1),
}


def load_policy(folder: Path, batch_size: int = 512) -> Policy:
    """The model of a folder as a policy at temperature 1."""
    model = AutoModelForImageTextToText.from_pretrained(folder, dtype=torch.float32)
    processor = AutoProcessor.from_pretrained(folder)
    return Policy(model, processor, max_new_tokens=40, batch_size=batch_size)


def sample_questions(plan: dict[str, Share], seed: int) -> dict[str, list[Question]]:
    """Split -> its questions, each identity once, domains taking turns."""
    result: dict[str, list[Question]] = {}
    for split, share in plan.items():
        rng = random.Random(f"questions {split} {seed + share.draw}")
        seen: set[str] = set()
        questions = []
        for place in range(max(share.num_target, share.num_other)):
            for domain in DOMAINS:
                if place >= (share.num_target if domain in TARGETS else share.num_other):
                    continue
                question = sample_question(domain, rng, [split])
                while question.identity in seen:
                    question = sample_question(domain, rng, [split])
                seen.add(question.identity)
                questions.append(question)
        result[split] = questions
    check_disjoint(**result)
    return result


def build_chains(policy: Policy, plan: dict[str, Share], *, num_completions: int = 8, seed: int = 0) -> list[Chain]:
    """Chains of every split; those of `train` with Monte-Carlo counts where `num_completions` is not 0."""
    chains: list[Chain] = []
    for split, questions in sample_questions(plan, seed).items():
        prefixes = [Prefix(question.text, (draw(question.scene),)) for question in questions]
        sampled = policy.sample(prefixes, plan[split].num_chains, seed=seed)
        for question, responses in zip(questions, sampled):
            chains += [Chain(split, question, split_steps(text) or (text.strip() or "?",)) for text in responses]
    if num_completions:
        train = [chain for chain in chains if chain.split == "train"]
        chains = [*_with_counts(policy, train, num_completions, seed), *(c for c in chains if c.split != "train")]
    return chains


def _with_counts(policy: Policy, chains: Sequence[Chain], num: int, seed: int) -> list[Chain]:
    questions = {chain.question.identity: chain.question for chain in chains}
    records = [
        Record(
            str(row),
            "world",
            c.question.domain,
            c.question.identity,
            c.question.text,
            c.steps,
            (draw(c.question.scene),),
        )
        for row, c in enumerate(chains)
    ]

    def is_right(record: Record, response: str) -> bool:
        return check_answer(questions[record.group], split_steps(response))

    counts = monte_carlo(policy, records, is_right, num, seed=seed)
    return [replace(chain, mc_right=count.right, mc_total=count.total) for chain, count in zip(chains, counts)]


def main(arguments: list[str] | None = None) -> None:
    """The command line."""
    parser = argparse.ArgumentParser(description="Sample the world's chains.")
    parser.add_argument("--out", type=Path, default=CHAINS, help="file to write (default: the shipped one)")
    parser.add_argument("--model", type=Path, default=base_folder(), help="folder of the policy")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--completions", type=int, default=8, help="Monte-Carlo completions per prefix; 0 for none")
    parser.add_argument("--threads", type=int, default=2)
    chosen = parser.parse_args(arguments)
    torch.set_num_threads(chosen.threads)
    policy = load_policy(chosen.model)
    start = time.perf_counter()

    def progress(done: int, total: int) -> None:
        sys.stdout.write(f"{done} of {total} responses, {time.perf_counter() - start:.0f} s\n")
        sys.stdout.flush()

    policy.progress = progress
    chains = build_chains(policy, PLAN, num_completions=chosen.completions, seed=chosen.seed)
    write_chains(chosen.out, chains)
    sys.stdout.write(f"{len(chains)} chains in {chosen.out}, {chosen.out.stat().st_size / 2**20:.2f} MiB\n")


if __name__ == "__main__":
    main()
