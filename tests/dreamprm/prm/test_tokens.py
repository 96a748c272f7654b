"""Labels have to be one token where they stand; marks are found whatever the text says."""

import pytest

from dreamprm.data.record import RecordError
from dreamprm.prm.prompt import Layout, Prompt, render
from dreamprm.prm.tokens import label_tokens, locate


def with_merges(tokenizer, merges):
    """The same tokenizer with a few pairs of letters joined into one token."""
    from tokenizers import Tokenizer, models
    from transformers import PreTrainedTokenizerFast

    core = tokenizer.backend_tokenizer
    alphabet = {token: index for token, index in core.get_vocab().items() if index < 256}
    vocabulary = alphabet | {"".join(pair): 256 + place for place, pair in enumerate(merges)}
    joined = Tokenizer(models.BPE(vocab=vocabulary, merges=merges))
    joined.pre_tokenizer, joined.decoder = core.pre_tokenizer, core.decoder
    return PreTrainedTokenizerFast(
        tokenizer_object=joined,
        eos_token="<|im_end|>",
        additional_special_tokens=["<|im_start|>"],
        chat_template=tokenizer.chat_template,
    )


def test_labels_are_looked_up(tiny_tokenizer):
    right, wrong = label_tokens(tiny_tokenizer, Prompt())
    assert tiny_tokenizer.convert_ids_to_tokens([right, wrong]) == ["+", "-"]


def test_a_label_of_several_tokens_is_refused(tiny_tokenizer):
    with pytest.raises(ValueError, match=r"prompt\.right='good' must be one token"):
        label_tokens(tiny_tokenizer, Prompt(right="good", wrong="bad"))
    with pytest.raises(ValueError, match=r"prompt\.right='good' must be one token"):
        label_tokens(tiny_tokenizer, Prompt(layout="separator", right="good", wrong="bad"))


def test_a_label_joined_with_its_neighbour_is_refused(tiny_tokenizer):
    # The template ends a turn by '!', and '+!' is one token: the label alone is none.
    template = tiny_tokenizer.chat_template.replace("<|im_end|>\n", "!")
    joined = with_merges(tiny_tokenizer, [("+", "!"), ("-", "!")])
    joined.chat_template = template
    with pytest.raises(ValueError, match="joins the mark"):
        label_tokens(joined, Prompt())


def test_the_placeholder_before_the_first_token_is_refused(tiny_tokenizer):
    rendered = render(Prompt(layout="separator", question="{step}{question}"), tiny_tokenizer, "q", ["a"])
    assert locate(tiny_tokenizer, rendered, Layout.separator).positions == [2]


def test_private_use_characters_in_the_text_do_no_harm(tiny_tokenizer):
    text = "".join(map(chr, range(0xE000, 0xE010)))
    rendered = render(Prompt(), tiny_tokenizer, text, [text, f"{text}0{text}"])
    assert [rendered.text[slice(*span)] for span in rendered.spans] == ["+", "+"]
    assert text in rendered.text


@pytest.mark.parametrize("layout", ["turns", "separator"])
def test_a_step_that_is_its_own_number_is_found(tiny_tokenizer, layout):
    rendered = render(Prompt(layout=layout), tiny_tokenizer, "0", ["0", "1", "2"])
    assert len(rendered.spans) == 3
    assert all(rendered.text[slice(*span)] == Prompt(layout=layout).mark for span in rendered.spans)


def test_a_separator_that_takes_the_next_step_with_it_is_refused(tiny_tokenizer):
    joined = with_merges(tiny_tokenizer, [(";", "!")])
    rendered = render(Prompt(layout="separator", separator=";"), joined, "q", ["a", "!b"])
    with pytest.raises(RecordError, match="step 0: the tokenizer joins the mark ';' with the text '!'"):
        locate(joined, rendered, Layout.separator)


def test_a_template_that_loses_turns_is_refused(tiny_tokenizer):
    import copy

    lossy = copy.deepcopy(tiny_tokenizer)
    lossy.chat_template = "{{ messages[0]['content'] }}{{ messages[1]['content'] }}"
    with pytest.raises(ValueError, match="leaves out or repeats"):
        render(Prompt(), lossy, "q", ["a", "b"])


def test_a_tokenizer_without_template_is_refused(tiny_tokenizer):
    import copy

    bare = copy.deepcopy(tiny_tokenizer)
    bare.chat_template = None
    with pytest.raises(ValueError, match=r"set prompt\.layout=separator"):
        render(Prompt(), bare, "q", ["a"])
    assert render(Prompt(layout="separator"), bare, "q", ["a", "b"]).text == "q\na\n\nb\n\n"


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"layout": "spiral"}, "allowed are turns, chat_separator, separator"),
        ({"question": "{question} {nonsense}"}, "may use only the fields"),
        ({"question": "{step}"}, "must hold the field {question} once"),
        ({"right": "+", "wrong": "+"}, "they have to differ"),
        ({"placeholder": ""}, "prompt.placeholder must not be empty"),
    ],
)
def test_bad_prompts(settings, message):
    with pytest.raises(ValueError, match=message):
        Prompt(**settings)


def test_braces_in_a_question_are_text(tiny_tokenizer):
    rendered = render(Prompt(), tiny_tokenizer, "what is {step} in {question}?", ["a"])
    assert "what is {step} in {question}?" in rendered.text
