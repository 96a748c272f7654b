"""Every word that a setting may be, once. Words that name something in a room (an aggregation, a loss, a weigher, an
optimizer) are the keys of that room's table instead, and `one_of` is the error of both.

Imports nothing: the command line and the readers check words without loading torch.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable
from enum import StrEnum

__all__ = [
    "Choice",
    "Device",
    "HeadKind",
    "Judge",
    "Judged",
    "Keep",
    "Layout",
    "NetInput",
    "OnBadRow",
    "OnMissingImage",
    "Precision",
    "Quantize",
    "Side",
    "Trained",
    "Trouble",
    "Vision",
    "Voting",
    "near_miss",
    "one_of",
]


def near_miss(word: str, allowed: Iterable[object]) -> str:
    """`; did you mean WORD?`, or nothing where no allowed word is close."""
    close = difflib.get_close_matches(word, [str(item) for item in allowed], n=1)
    return f"; did you mean {close[0]}?" if close else ""


def one_of(word: object, allowed: Iterable[str], what: str) -> str:
    """The word, where it is one of the allowed ones. Raises ValueError with all of them for any other."""
    names = list(allowed)
    if word in names:
        return str(word)
    raise ValueError(f"{word!r} is no {what}; allowed are {', '.join(names)}{near_miss(str(word), names)}")


class Choice(StrEnum):
    """A setting that is one of a few words: each member's name is the word. Raises ValueError for any other word."""

    @classmethod
    def _missing_(cls, value: object) -> None:
        one_of(value, [member.value for member in cls], cls.__name__)


class Device(Choice):
    """`auto`: a GPU where there is one."""

    auto = "auto"
    cpu = "cpu"
    cuda = "cuda"


class Precision(Choice):
    """`bf16` is autocast over parameters in fp32; `pure_bf16` keeps the parameters in bf16, as published."""

    fp32 = "fp32"
    bf16 = "bf16"
    pure_bf16 = "pure_bf16"


class Quantize(Choice):
    """How the frozen base is held: in eight bits, or in four (nf4)."""

    none = "none"
    int8 = "int8"
    nf4 = "nf4"


class Vision(Choice):
    """The vision tower (Qwen-VL's with its merger): `trained`; `frozen`, which keeps adapters out of it too; `cached`:
    frozen, and computed once per image."""

    trained = "trained"
    frozen = "frozen"
    cached = "cached"


class Trained(Choice):
    """How much of the model is trained: `whole`, or what is left by the other settings; `last_feed_forward`: the last
    layer's feed-forward block, the final norm and the head, all below computed once per chain and kept."""

    whole = "whole"
    last_feed_forward = "last_feed_forward"


class Side(Choice):
    """Where padding stands."""

    left = "left"
    right = "right"


class HeadKind(Choice):
    """How a model is read at a step. `generative`: softmax over the label tokens (DreamPRM-1.5). `vocabulary`:
    Linear(vocabulary, 1) over the logits (DreamPRM). `linear`: Linear(hidden, 1). `token_classification`: the model's
    own classifier of one or two classes."""

    generative = "generative"
    vocabulary = "vocabulary"
    linear = "linear"
    token_classification = "token_classification"


class Layout(Choice):
    """Where the verdict on a step stands.

    `turns`: every step is a user turn, its verdict the assistant turn that follows (VisualPRM, DreamPRM-1.5).
    `chat_separator`: one assistant turn holds all steps, each followed by a separator token (Qwen2.5-Math-PRM).
    `separator`: plain text without a chat template, each step followed by a separator (Math-Shepherd, TRL).
    """

    turns = "turns"
    chat_separator = "chat_separator"
    separator = "separator"


class OnBadRow(Choice):
    """`error` stops at the first bad row, `skip` counts and passes over, `quarantine` also writes a side file."""

    error = "error"
    skip = "skip"
    quarantine = "quarantine"


class OnMissingImage(Choice):
    """`error`: an image that is not there stops the run before it begins. `skip`: its chain is left out."""

    error = "error"
    skip = "skip"


class Keep(Choice):
    """`clean` reads the known truth of the embedded world: for comparison only, nothing that trains may know it."""

    all = "all"
    clean = "clean"


class Trouble(Choice):
    """What is wrong with the world's training labels; see `dreamprm.world.trouble.WorldConfig`."""

    flips = "flips"
    crowd = "crowd"
    monte_carlo = "monte_carlo"
    shortcut = "shortcut"
    off_target = "off_target"
    rare_wrong = "rare_wrong"
    domains = "domains"
    clean = "clean"


class Judge(Choice):
    """How two answers are compared: `math`, equal as mathematics; `exact`, letter by letter but for spaces around."""

    math = "math"
    exact = "exact"


class Judged(Choice):
    """Which of the world's questions a run is judged on: choose settings on `validation`, report `test`."""

    test = "test"
    validation = "validation"


class NetInput(Choice):
    """What an instance net sees of a step: scores, label and loss; the chain's loss alone (Meta-Weight-Net); or as
    published the two-way softmax alone."""

    label_aware = "label_aware"
    loss = "loss"
    paper = "paper"


class Voting(Choice):
    """How one of several chains is chosen: the PRM's highest, votes weighted by the PRM, or plain votes."""

    prm = "prm"
    weighted_vote = "weighted_vote"
    self_consistency = "self_consistency"
