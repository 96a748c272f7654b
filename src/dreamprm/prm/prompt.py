"""How a chain is laid out for the model: which text stands where, and where each step is judged."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from dreamprm.choices import Layout
from dreamprm.data.record import IMAGE_PLACE, RecordError

__all__ = ["Prompt", "Rendered", "messages_of", "render", "tokenizer_of"]


_DEFAULT_QUESTION = {
    Layout.turns: "### Question:\n{question}\n\n### Solution Process:\n{step}",
    Layout.chat_separator: "{question}",
    Layout.separator: "{question}\n{step}",
}


@dataclass(frozen=True, slots=True)
class Prompt:
    """The settings of the layout; they travel with the model in `prm.json`, so that training and test agree.

    question: the first turn's text, with the fields {question} and {step} (the first step); None: the layout's own.
        Question and first step share one turn in training and in scoring.
    right, wrong: the texts whose probabilities a generative head compares; each has to be one token.
    placeholder: stands where the verdicts stand (TURNS); constant, so that no label ever enters the context.
    separator: follows each step in the two separator layouts.
    """

    layout: Layout = Layout.turns
    system: str | None = None
    question: str | None = None
    right: str = "+"
    wrong: str = "-"
    placeholder: str = "+"
    separator: str = "\n\n"

    def __post_init__(self) -> None:
        object.__setattr__(self, "layout", Layout(self.layout))
        template = self.first_turn
        wanted = {"question"} if self.layout is Layout.chat_separator else {"question", "step"}
        try:
            template.format(**dict.fromkeys(wanted, ""))
        except (KeyError, IndexError, ValueError) as error:
            raise ValueError(
                f"prompt.question {template!r} may use only the fields {sorted(wanted)}: {error}"
            ) from None
        for name in wanted:
            if template.count("{" + name + "}") != 1:
                raise ValueError(f"prompt.question {template!r} must hold the field {{{name}}} once")
        for name in ("right", "wrong", "placeholder", "separator"):
            if not getattr(self, name):
                raise ValueError(f"prompt.{name} must not be empty")
        if self.right == self.wrong:
            raise ValueError(f"prompt.right and prompt.wrong are both {self.right!r}; they have to differ")

    @property
    def first_turn(self) -> str:
        return _DEFAULT_QUESTION[self.layout] if self.question is None else self.question

    @property
    def mark(self) -> str:
        """The text that stands at every judged place: the separator without the blanks it ends with, if it has more."""
        return self.placeholder if self.layout is Layout.turns else self.separator.rstrip() or self.separator


@dataclass(frozen=True, slots=True)
class Rendered:
    """The prompt's exact text and the character span of each step's mark in it."""

    text: str
    spans: tuple[tuple[int, int], ...]

    def marked(self, before: str = "⟦", after: str = "⟧") -> str:
        """The text with brackets around each judged place, for reading."""
        pieces, end = [], 0
        for start, stop in self.spans:
            pieces += [self.text[end:start], before, self.text[start:stop], after]
            end = stop
        return "".join([*pieces, self.text[end:]])


def tokenizer_of(processor: Any) -> Any:
    """The tokenizer of a processor, or the tokenizer itself for a text-only model."""
    return getattr(processor, "tokenizer", processor)


def _sentinels(texts: Sequence[str], count: int) -> list[str]:
    # Any private-use character that no text of this chain holds; a mark is found by it, never by what it looks like,
    # so a '+' in "3 + 4" cannot be taken for a verdict.
    joined = "".join(texts)
    for code in range(0xE000, 0xF8FF):
        if chr(code) not in joined and chr(code + 1) not in joined:
            # Two characters, or the step "1" between the marks 0 and 1 would read as mark 1.
            return [f"{chr(code)}{index}{chr(code + 1)}" for index in range(count)]
    raise RecordError("the text holds every private-use character of Unicode; is it text?", field="steps")


def _content(text: str, num_images: int, multimodal: bool, place: str) -> Any:
    """A turn's content: its images before its text, or each at its place in it."""
    if not multimodal:
        return text
    if place not in text:
        return [*({"type": "image"} for _ in range(num_images)), {"type": "text", "text": text}]
    pieces: list[dict[str, str]] = []
    for index, piece in enumerate(text.split(place)):
        pieces += [{"type": "image"}] if index else []
        pieces += [{"type": "text", "text": piece}] if piece else []
    return pieces


def _chain(prompt: Prompt, steps: Sequence[str], marks: Sequence[str], breaks: Sequence[str]) -> str:
    """Steps and marks in one text, parted as in their file, else by the blank end of the separator."""
    gap = prompt.separator[len(prompt.mark) :]
    if len(breaks) != len(steps) - 1:
        breaks = ["" if step[:1].isspace() else gap for step in steps[1:]]
    return "".join(step + mark + blank for step, mark, blank in zip(steps, marks, (*breaks, gap)))


def _messages(
    prompt: Prompt,
    question: str,
    steps: Sequence[str],
    num_images: int,
    marks: Sequence[str],
    multimodal: bool,
    breaks: Sequence[str],
) -> list[dict[str, Any]]:
    # No text holds the last mark, so the place of an image can be told from what a step says of images.
    *marks, place = marks
    if num_images and multimodal and question.count(IMAGE_PLACE) == num_images:
        question = question.replace(IMAGE_PLACE, place)

    def turn(role: str, text: str, images: int = 0) -> dict[str, Any]:
        return {"role": role, "content": _content(text, images, multimodal, place)}

    messages = [] if prompt.system is None else [turn("system", prompt.system)]
    if prompt.layout is Layout.chat_separator:
        return [
            *messages,
            turn("user", prompt.first_turn.format(question=question), num_images),
            turn("assistant", _chain(prompt, steps, marks, breaks)),
        ]
    for index, (step, mark) in enumerate(zip(steps, marks)):
        if index == 0:
            messages.append(turn("user", prompt.first_turn.format(question=question, step=step), num_images))
        else:
            messages.append(turn("user", step))
        messages.append(turn("assistant", mark))
    return messages


def messages_of(
    prompt: Prompt, question: str, steps: Sequence[str], num_images: int = 0, *, breaks: Sequence[str] = ()
) -> list[dict[str, Any]]:
    """The turns that `render` lays out, for a server that lays them out itself; images are `{"type": "image"}`.

    Raises ValueError for the layout without turns.
    """
    if prompt.layout is Layout.separator:
        raise ValueError("layout 'separator' has no turns")
    *_, place = _sentinels([question, *steps, prompt.system or "", prompt.first_turn], len(steps) + 1)
    marks = [*[prompt.mark] * len(steps), place]
    return _messages(prompt, question, steps, num_images, marks, True, breaks)


def render(
    prompt: Prompt,
    processor: Any,
    question: str,
    steps: Sequence[str],
    num_images: int = 0,
    *,
    mark: str | None = None,
    breaks: Sequence[str] = (),
) -> Rendered:
    """The exact text that the model reads, before image tokens are expanded, with the span of every step's mark.

    The processor's own chat template is rendered once with unique private-use strings at the marks, which are then
    replaced. mark: another text than the prompt's own at the marks (to look up a label's token in its context).
    breaks: what stands before each step but the first in the file that it is from, for the separator layouts.
    Raises RecordError for a chain without steps, for text that holds one of the tokenizer's special tokens (it would
    become control text), and ValueError where the layout needs a chat template that the tokenizer does not have.
    """
    if not steps:
        raise RecordError("the chain has no steps, so there is nothing to judge", field="steps")
    texts = [question, *steps]
    _refuse_special_tokens(tokenizer_of(processor), texts)
    *sentinels, place = _sentinels([*texts, prompt.system or "", prompt.first_turn], len(steps) + 1)
    if prompt.layout is Layout.separator:
        if num_images:
            raise RecordError("layout 'separator' has no place for images; use layout 'turns'", field="images")
        head = prompt.first_turn.format(question=question, step=steps[0] + sentinels[0])
        raw = (
            (prompt.system or "")
            + head
            + _chain(prompt, steps, sentinels, breaks).removeprefix(steps[0] + sentinels[0])
        )
    else:
        multimodal = hasattr(processor, "tokenizer")
        if getattr(processor, "chat_template", None) is None and (
            not multimodal or tokenizer_of(processor).chat_template is None
        ):
            raise ValueError(
                f"layout '{prompt.layout}' needs a chat template and this tokenizer has none; "
                "set prompt.layout=separator, or save the processor with a chat template"
            )
        messages = _messages(prompt, question, steps, num_images, (*sentinels, place), multimodal, breaks)
        raw = processor.apply_chat_template(messages, tokenize=False, add_generation_prompt=False)
    return _replace(raw, sentinels, prompt.mark if mark is None else mark)


def _replace(raw: str, sentinels: Sequence[str], mark: str) -> Rendered:
    pieces: list[str] = []
    spans: list[tuple[int, int]] = []
    length = 0
    for sentinel in sentinels:
        piece, found, raw = raw.partition(sentinel)
        if not found or sentinel in raw:
            raise ValueError(
                "the chat template leaves out or repeats some of the turns, so steps cannot be found in it; "
                "use a template that writes every turn once"
            )
        pieces += [piece, mark]
        length += len(piece)
        spans.append((length, length + len(mark)))
        length += len(mark)
    return Rendered("".join([*pieces, raw]), tuple(spans))


def _refuse_special_tokens(tokenizer: Any, texts: Sequence[str]) -> None:
    special = [str(token) for token in tokenizer.added_tokens_decoder.values() if token.special]
    for index, text in enumerate(texts):
        for token in special:
            if token and token in text:
                raise RecordError(
                    f"the text holds {token!r}, which this tokenizer reads as a control token; remove or rewrite it",
                    field="question" if index == 0 else f"step {index - 1}",
                )
