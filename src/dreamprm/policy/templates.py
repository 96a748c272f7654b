"""How a question is put to the policy: named prompt templates, each with one place for the question."""

from __future__ import annotations

__all__ = ["TEMPLATES", "fill"]

TEMPLATES: dict[str, str] = {
    "plain": "{question}",
    "steps": (
        "{question}\n\nSolve the problem step by step, one step per line. End with a line that reads: "
        "The final answer is: ANSWER"
    ),
    # The structure of DreamPRM (arXiv 2505.20241): restate, look, recall, reason, conclude.
    "five_steps": (
        "You are given a question, and an image where there is one. Solve it in exactly five steps, each a paragraph "
        "that begins with its number:\n"
        "Step 1: Restate the question in your own words: what is given and what is asked.\n"
        "Step 2: Gather the evidence in the image or the text: every fact, number and relation that matters.\n"
        "Step 3: Name the knowledge that is needed: definitions, theorems, formulas.\n"
        "Step 4: Reason from this evidence and knowledge to the result, and check it.\n"
        "Step 5: Conclude with one line that reads: The final answer is: ANSWER\n"
        "For a choice among options ANSWER is the letter of the option.\n\nQuestion: {question}"
    ),
}


def fill(template: str, question: str) -> str:
    """The template of that name with the question in its place. The question's own braces stay as they are."""
    return TEMPLATES[template].replace("{question}", question)
