"""Which token judges each step, and which tokens are the labels: found in the rendered text, by token, once."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

from dreamprm.choices import Layout
from dreamprm.data.record import RecordError
from dreamprm.prm.prompt import Prompt, Rendered, render, tokenizer_of

__all__ = ["LabelTokens", "Located", "label_tokens", "locate", "special_tokens_option"]


class LabelTokens(NamedTuple):
    """Vocabulary indices of the texts for right and wrong."""

    right: int
    wrong: int


class Located(NamedTuple):
    """Token ids of the rendered text (image tokens not yet expanded), and of each step: its mark's token.

    positions: the index of the token whose output judges the step: the one before the placeholder in layout
    'turns', the separator's last token in the other layouts.
    """

    ids: list[int]
    positions: list[int]


def special_tokens_option(tokenizer: Any, text: str) -> dict[str, bool]:
    """Keeps the tokenizer from writing a begin-of-text token again that the chat template has written."""
    bos = getattr(tokenizer, "bos_token", None)
    return {"add_special_tokens": False} if bos and text.startswith(bos) else {}


def locate(tokenizer: Any, rendered: Rendered, layout: Layout) -> Located:
    """Tokenises once with character offsets and finds each mark's token.

    Raises RecordError if a placeholder is not exactly one token where it stands, or if a separator leaves no token
    of its own (it would then read the next step's text).
    """
    if not getattr(tokenizer, "is_fast", False):
        raise ValueError(
            f"{type(tokenizer).__name__} gives no character offsets, so steps cannot be found by token; "
            "use the model's fast tokenizer"
        )
    options = special_tokens_option(tokenizer, rendered.text)
    encoded = tokenizer(rendered.text, return_offsets_mapping=True, verbose=False, **options)
    ids, offsets = list(encoded["input_ids"]), list(encoded["offset_mapping"])
    positions: list[int] = []
    token = 0
    for step, (start, stop) in enumerate(rendered.spans):
        while token < len(offsets) and not (offsets[token][1] > start and offsets[token][1] > offsets[token][0]):
            token += 1
        covering = []
        while token < len(offsets) and (offsets[token][0] < stop or offsets[token][1] == offsets[token][0]):
            if offsets[token][1] > offsets[token][0]:
                covering.append(token)
            token += 1
        positions.append(_judge(rendered, offsets, covering, step, start, stop, layout))
        token = covering[-1]
    return Located(ids, positions)


def _judge(
    rendered: Rendered,
    offsets: Sequence[tuple[int, int]],
    covering: Sequence[int],
    step: int,
    start: int,
    stop: int,
    layout: Layout,
) -> int:
    mark, name = rendered.text[start:stop], f"step {step}"
    if not covering:
        raise RecordError(f"the tokenizer drops the mark {mark!r}; choose a text that it keeps as a token", field=name)
    first, last = offsets[covering[0]], offsets[covering[-1]]
    if last[1] != stop:
        extra = rendered.text[stop : last[1]]
        raise RecordError(f"the tokenizer joins the mark {mark!r} with the text {extra!r} that follows it", field=name)
    if layout is not Layout.turns:
        return covering[-1]
    before = rendered.text[first[0] : start]
    if len(covering) != 1 or before.strip():
        tokens = [rendered.text[slice(*offsets[token])] for token in covering]
        raise RecordError(f"the placeholder {mark!r} is not one token where it stands, but {tokens}", field=name)
    if covering[0] == 0:
        raise RecordError("no token stands before the first placeholder", field=name)
    return covering[0] - 1


def label_tokens(processor: Any, prompt: Prompt) -> LabelTokens:
    """The tokens of `prompt.right` and `prompt.wrong` in the place where they stand.

    In layout 'turns' each is rendered as the assistant's turn and read off there, since a tokenizer may write '+' in
    another way after a newline than alone. Raises ValueError where one is not exactly one known token.
    """
    tokenizer = tokenizer_of(processor)
    found = []
    for name, text in (("right", prompt.right), ("wrong", prompt.wrong)):
        if prompt.layout is Layout.turns:
            rendered = render(prompt, processor, "question", ["step", "step"], mark=text)
            try:
                located = locate(tokenizer, rendered, prompt.layout)
            except RecordError as error:
                raise ValueError(
                    f"prompt.{name}={text!r} must be one token of this tokenizer: {error.reason}"
                ) from None
            tokens = {located.ids[position + 1] for position in located.positions}
        else:
            tokens = tokenizer(text, add_special_tokens=False)["input_ids"]
        if len(tokens) != 1:
            raise ValueError(f"prompt.{name}={text!r} must be one token of this tokenizer, is {len(tokens)}")
        token = next(iter(tokens))
        if token == getattr(tokenizer, "unk_token_id", None):
            raise ValueError(
                f"prompt.{name}={text!r} is unknown to this tokenizer; choose a text that it has a token for"
            )
        found.append(int(token))
    if found[0] == found[1]:
        raise ValueError(f"prompt.right and prompt.wrong are the same token, {found[0]}")
    return LabelTokens(*found)
