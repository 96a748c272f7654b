"""A PRM as a reward function: for TRL's GRPOTrainer, and for verl.

    trainer = GRPOTrainer(model=…, reward_funcs=as_reward("run/prm"), …)         # TRL
    compute_score = as_reward("http://127.0.0.1:8000").compute_score             # verl: custom_reward_function.path

The reward of a completion is the aggregation of its steps' scores. What cannot be scored at all (no text, a control
token inside) gets `unreadable` and is counted; everything else that goes wrong is an error, never a number.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from dreamprm.data.readers.images import as_images
from dreamprm.data.record import Record, RecordError
from dreamprm.data.splitter import clean_steps
from dreamprm.prm import PRM, aggregate
from dreamprm.serve.client import RefusedError, ScoreClient

__all__ = ["PRMReward", "as_reward"]


def as_reward(
    source: PRM | str | Path,
    *,
    folder: str | Path | None = None,
    aggregation: str | None = None,
    steps: Callable[[str], Sequence[str]] = clean_steps,
    unreadable: float = 0.0,
    batch_size: int = 8,
    device: str | None = None,
) -> PRMReward:
    """The reward function of a PRM.

    source: a PRM, a folder or hub name that PRM.from_pretrained reads, or the http address of a server.
    folder: of a server's PRM, for servers that know `/pooling` alone (vLLM).
    aggregation: how a chain is scored; None: as the PRM says, the mean for a server without a folder.
    steps: cuts a completion into steps.  unreadable: the reward of what cannot be scored.
    device: where a PRM that is loaded here lies.
    Raises what loading raises, and ValueError for an unknown aggregation.
    """
    reader: PRM | ScoreClient
    own = "mean"
    if isinstance(source, PRM):
        reader, own = source, source.aggregation
    elif str(source).startswith(("http://", "https://")):
        reader = ScoreClient(str(source), folder)
        own = reader.aggregation
    else:
        reader = PRM.from_pretrained(source).to(device or "cpu").eval()
        own = reader.aggregation
    aggregate([0.5], aggregation or own)
    return PRMReward(reader, aggregation or own, steps, unreadable, batch_size)


class PRMReward:
    """Called as TRL calls a reward function; `compute_score` is what verl calls. See `as_reward`.

    num_unreadable: completions so far that could not be scored.
    """

    def __init__(
        self,
        reader: PRM | ScoreClient,
        aggregation: str,
        steps: Callable[[str], Sequence[str]],
        unreadable: float,
        batch_size: int,
    ) -> None:
        self.reader, self.aggregation, self.steps = reader, aggregation, steps
        self.unreadable, self.batch_size = unreadable, batch_size
        self.num_unreadable = 0
        self.__name__ = "prm_reward"  # TRL's name for it in its logs

    def __call__(
        self, prompts: Sequence[Any], completions: Sequence[Any], images: Any = None, image: Any = None, **columns: Any
    ) -> list[float]:
        """One reward per completion. prompts, completions: texts, or lists of messages; the question is the last user
        turn.  images, image: the data set's columns of these names, which stand before a prompt's own images."""
        given = images if images is not None else image if image is not None else [None] * len(prompts)
        chains = [
            self._chain(_question(prompt), _text(completion), shown if shown is not None else _images(prompt))
            for prompt, completion, shown in zip(prompts, completions, given, strict=True)
        ]
        return self._rewards(chains)

    def compute_score(
        self, data_source: str, solution_str: str, ground_truth: Any, extra_info: Any = None, **more: Any
    ) -> float:
        """The reward of one solution. Raises KeyError where extra_info lacks the question."""
        if not extra_info or "question" not in extra_info:
            raise KeyError("extra_info['question'] is missing: a PRM judges a solution with its question")
        return self._rewards([self._chain(extra_info["question"], solution_str, extra_info.get("images"))])[0]

    def _chain(self, question: str, solution: str, images: Any) -> Record | None:
        steps = tuple(self.steps(solution))
        if not any(step.strip() for step in steps):
            return None
        about: dict[str, Any] = {"source": "", "domain": "", "group": "", "images": as_images(images)}
        return Record(key="completion", question=question, steps=steps, **about)

    def _rewards(self, chains: Sequence[Record | None]) -> list[float]:
        readable = [chain for chain in chains if chain is not None]
        found = iter(self._scores(readable) if readable else [])
        scores = [None if chain is None else next(found) for chain in chains]
        self.num_unreadable += sum(steps is None for steps in scores)
        return [self.unreadable if steps is None else aggregate(steps, self.aggregation) for steps in scores]

    def _scores(self, chains: Sequence[Record]) -> list[list[float] | None]:
        """All at once; where one of them cannot be read, one by one."""
        try:
            return list(self.reader.score_records(chains, self.batch_size))
        except (RecordError, RefusedError):
            if len(chains) == 1:
                return [None]
            return [self._scores([chain])[0] for chain in chains]


def _question(prompt: Any) -> str:
    if isinstance(prompt, str):
        return prompt
    asked = [message for message in prompt if message["role"] == "user"]
    if not asked:
        raise ValueError("a prompt has no user turn, so there is no question to judge by")
    return _content(asked[-1]["content"])


def _text(completion: Any) -> str:
    if isinstance(completion, str):
        return completion
    return "\n\n".join(_content(message["content"]) for message in completion if message.get("content"))


def _content(content: Any) -> str:
    if isinstance(content, str):
        return content
    return "".join(part["text"] for part in content if part["type"] == "text")


def _images(prompt: Any) -> Any:
    """The images inside a prompt's messages, where they are."""
    if isinstance(prompt, str):
        return None
    parts = [part for message in prompt if not isinstance(message["content"], str) for part in message["content"]]
    return [part["image"] for part in parts if part["type"] == "image" and part.get("image") is not None]
