"""A process reward model: a transformers model, its processor, and a head that reads it at the judged tokens.

One file because users and subclasses read the class as a whole; its parts (heads, caches, storage) have their own.

Shapes: B chains, T tokens, S steps, H hidden width.
"""

from __future__ import annotations

import contextlib
import inspect
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, cast

import torch
from einops import repeat
from jaxtyping import Float
from torch import Tensor, nn

from dreamprm.choices import HeadKind, one_of
from dreamprm.data.readers.images import Images, as_images
from dreamprm.data.record import Record
from dreamprm.prm.aggregation import AGGREGATIONS
from dreamprm.prm.collate import Batch, Collator
from dreamprm.prm.frozen import FrozenLayers
from dreamprm.prm.heads import (
    LabelHead,
    LinearHead,
    VocabularyHead,
    class_log_odds,
    gather_steps,
    output_rows,
)
from dreamprm.prm.kept_states import KeptStates
from dreamprm.prm.prompt import Prompt
from dreamprm.prm.quantized import keep_layout
from dreamprm.prm.shared_prefix import SharedPrefixScorer, same_start, shares_prefix
from dreamprm.prm.tokens import label_tokens
from dreamprm.prm.vision import CachedVision, freeze_vision

__all__ = ["PRM"]


class PRM(nn.Module):
    """Scores every step of a chain in one pass.

    model: a transformers model (image-text-to-text, causal, or token classification), bare or wrapped by peft.
    processor: its processor, or its tokenizer where it reads text only.
    head: see `HeadKind`.  prompt: the layout, see `Prompt`.  aggregation: how chains are scored unless told otherwise.
    collation: further settings of `Collator` (max_length, max_image_side, images_kwargs), the same wherever this model
        is trained or asked.
    right_class: the class that means right, for a token classifier of two classes.
    Raises ValueError where a label is not one token, or the model has not what the head needs.
    """

    def __init__(
        self,
        model: nn.Module,
        processor: Any,
        head: str = "generative",
        *,
        prompt: Prompt | None = None,
        aggregation: str = "mean",
        collation: Mapping[str, Any] | None = None,
        right_class: int = 1,
    ) -> None:
        super().__init__()
        keep_layout(model)
        self.model = model
        self.processor = processor
        self.prompt = prompt or Prompt()
        self.kind = HeadKind(head)
        self.aggregation = one_of(aggregation, AGGREGATIONS, "aggregation")
        self.collation = dict(collation or {})
        self.right_class = right_class
        self.labels = label_tokens(processor, self.prompt) if self.kind is HeadKind.generative else None
        self.head = self._build_head()
        self.frozen: FrozenLayers | None = None
        self.kept: KeptStates | None = None
        self.vision: CachedVision | None = None
        self.num_shared_groups = 0  # questions whose candidates were scored together, see SharedPrefixScorer
        self.collator()  # wrong collation settings show now, not at the first batch

    @property
    def transformer(self) -> Any:
        """The transformers model with its heads; under peft, the model that carries the adapters."""
        model: Any = self.model
        return model.get_base_model() if hasattr(model, "peft_config") and hasattr(model, "get_base_model") else model

    @property
    def body(self) -> Any:
        """The transformers model below its heads: what gives hidden states."""
        return self.transformer.base_model

    @property
    def device(self) -> torch.device:
        return next(self.parameters()).device

    def _build_head(self) -> nn.Module | None:
        if self.kind is HeadKind.token_classification:
            num_labels = self.transformer.config.num_labels
            if num_labels not in (1, 2):
                raise ValueError(f"a token classifier needs one or two classes, this one has {num_labels}")
            return None
        hidden_size = self.transformer.config.get_text_config().hidden_size
        device = next(self.model.parameters()).device
        if self.kind is HeadKind.linear:
            return LinearHead(hidden_size, device)
        output = output_rows(self.transformer)
        if self.kind is HeadKind.vocabulary:
            return VocabularyHead(output.weight.shape[0], device)
        assert self.labels is not None
        if output.weight is not self.transformer.get_input_embeddings().weight:
            # The other rows are not read any more; the two that are have become the label head's.
            output.requires_grad_(False)
        return LabelHead(output.weight, output.bias, *self.labels)

    def forward(self, batch: Batch) -> Float[Tensor, "B S"]:
        """The log-odds that each step is right, in float32; 0 where there is no step."""
        inputs = self._arguments(batch.inputs)
        if self.kept is not None:
            log_odds = self.read(self.kept.hidden(self._run_body, inputs, batch))
            return torch.where(batch.step_mask, log_odds, torch.zeros_like(log_odds))
        with contextlib.ExitStack() as kept:
            if self.vision is not None:
                kept.enter_context(self.vision.serve())
            if self.frozen is not None:
                kept.enter_context(self.frozen.serve(self._run_body, inputs))
            # The body alone: the language model's head would make (B, T, vocabulary) out of it.
            is_classifier = self.kind is HeadKind.token_classification
            output = self.model(**inputs).logits if is_classifier else self._run_body(inputs).last_hidden_state
        log_odds = self.read(gather_steps(output, batch.step_positions))
        return torch.where(batch.step_mask, log_odds, torch.zeros_like(log_odds))

    def read(self, at_steps: Float[Tensor, "B S H"]) -> Float[Tensor, "B S"]:
        """Log-odds, in float32, from what the body (a token classifier: its classes) gives at the judged tokens."""
        if self.kind is HeadKind.token_classification:
            return class_log_odds(at_steps, self.right_class).float()
        if isinstance(self.head, VocabularyHead):
            return self.head(at_steps, self.transformer.get_output_embeddings()).float()
        return cast(nn.Module, self.head)(at_steps).float()

    @property
    def cache_name(self) -> str:
        """What keys and values are called, in the body's arguments and output: transformers 5.24 took another name."""
        return "cache" if "cache" in inspect.signature(self.body.forward).parameters else "past_key_values"

    def run_body(self, inputs: Mapping[str, Any]) -> Any:
        """The body's output with its keys and values (`cache_name`), from the first token on."""
        return self._run_body(self._arguments(inputs) | {"use_cache": True})

    def continue_body(self, inputs: Mapping[str, Any], num_before: int, *, images: bool) -> Any:
        """The body's output for tokens after `num_before` others, whose keys and values `inputs` holds.

        images: whether images stand among those.
        """
        arguments = self._arguments(inputs) | {"use_cache": True}
        positions = (inputs["attention_mask"].long().cumsum(1) - 1)[:, num_before:]
        if hasattr(self.body, "get_rope_index"):
            # Qwen-VL counts an image as fewer positions than tokens; the pass before has left by how many.
            shift = self.body.rope_deltas if images else 0
            arguments["position_ids"] = repeat(positions + shift, "c t -> three c t", three=3)
        elif "position_ids" in arguments:
            arguments["position_ids"] = positions
        return self._run_body(arguments)

    def _run_body(self, inputs: Mapping[str, Any]) -> Any:
        return self.body(**inputs)

    def freeze_layers(self, num_layers: int, *, cache: bool = True, folder: str | Path | None = None) -> None:
        """Freeze the embeddings and the first layers; with `cache` their output is computed once per chain and kept.

        Scores stay the same. folder: where it is kept between runs too. Raises ValueError, see `FrozenLayers`.
        """
        self.frozen = FrozenLayers(self.body, num_layers, cache=cache, folder=folder)

    def freeze_below_last_feed_forward(self, *, folder: str | Path | None = None) -> None:
        """Freeze all but the last feed-forward block, the final norm and the head; see `KeptStates`."""
        if self.kind is HeadKind.token_classification:
            raise ValueError("a token classifier is trained whole, or with model.freeze_layers")
        self.transformer.requires_grad_(False)
        self.kept = KeptStates(self.body, folder=folder)

    def freeze_vision(self, *, cache: bool = False, megabytes: int = 1024, folder: str | Path | None = None) -> None:
        """Freeze the vision tower; with `cache` its output is computed once per image and kept, up to that much memory.

        Scores and the gradients of the rest stay the same. folder: where it is kept between runs too. Call it after
        adapters are added. Raises ValueError, see `CachedVision`.
        """
        freeze_vision(self.model)
        self.vision = CachedVision(self.body, megabytes=megabytes, folder=folder) if cache else None

    def flush_features(self) -> None:
        """Write what frozen parts have computed into the folders that were set for it."""
        for part in (self.frozen, self.kept, self.vision):
            if part is not None:
                part.store.flush()

    def step_scores(self, batch: Batch) -> Float[Tensor, "B S"]:
        """The probability that each step is right; 1/2 where there is no step."""
        return self(batch).sigmoid()

    def _arguments(self, inputs: Mapping[str, Tensor]) -> dict[str, Any]:
        """The model's arguments; positions count from the first real token, so that left padding changes nothing."""
        known = inspect.signature(self.body.forward).parameters
        arguments: dict[str, Any] = dict(inputs)
        mask = arguments["attention_mask"]
        # Models with their own rule of positions (Qwen-VL's three-dimensional ones, RoBERTa's offset by the padding
        # token) derive them from the mask or the tokens.
        own_rule = hasattr(self.body, "get_rope_index") or _positions_from_tokens(self.body)
        if "position_ids" in known and not own_rule:
            arguments["position_ids"] = (mask.long().cumsum(1) - 1).clamp_min(0)
        if hasattr(self.transformer.config.get_text_config(), "use_cache"):
            arguments["use_cache"] = False
        return arguments

    def collator(self, **changes: Any) -> Collator:
        """The collator of this model's prompt and processor; `changes` override its settings (domains, cache …)."""
        return Collator(self.processor, self.prompt, **{**self.collation, **changes})

    def score_records(
        self, records: Sequence[Record], batch_size: int = 8, *, share_prefix: bool = True
    ) -> list[list[float]]:
        """The step scores of every record, in their order; batches are of chains of like length.

        share_prefix: read the question and images of several candidates once, see `SharedPrefixScorer`. Token
            classifiers, and models whose lower layers are frozen and kept, read every chain whole.
        """
        return self._read_records(records, batch_size, torch.sigmoid, share_prefix)

    def log_odds_records(
        self, records: Sequence[Record], batch_size: int = 8, *, share_prefix: bool = True
    ) -> list[list[float]]:
        """As `score_records`, the log-odds that each step is right."""
        return self._read_records(records, batch_size, lambda log_odds: log_odds, share_prefix)

    @torch.no_grad()
    def _read_records(
        self, records: Sequence[Record], batch_size: int, read: Callable[[Tensor], Tensor], share_prefix: bool
    ) -> list[list[float]]:
        was_training = self.training
        self.eval()
        collate = self.collator()
        scores: list[list[float]] = [[] for _ in records]
        groups: dict[Any, list[int]] = {}
        for row, record in enumerate(records):
            groups.setdefault(same_start(record) if share_prefix and shares_prefix(self) else row, []).append(row)
        alone = [rows[0] for rows in groups.values() if len(rows) == 1]
        by_length = sorted(alone, key=lambda row: sum(map(len, records[row].steps)))
        try:
            scorer = SharedPrefixScorer(self, collate)
            for rows in groups.values():
                for start in range(0, len(rows) if len(rows) > 1 else 0, batch_size):
                    chosen = rows[start : start + batch_size]
                    for row, values in zip(chosen, scorer.log_odds([records[row] for row in chosen])):
                        scores[row] = read(values).tolist()
            for start in range(0, len(by_length), batch_size):
                rows = by_length[start : start + batch_size]
                batch = collate([records[row] for row in rows]).to(self.device)
                for row, values in zip(rows, read(self(batch)).tolist()):
                    scores[row] = values[: len(records[row].steps)]
        finally:
            self.train(was_training)
        return scores

    def score(self, question: str, images: Images, steps: Sequence[str]) -> list[float]:
        """The probability that each step is right. images: None, or paths, encoded bytes, Pillow images."""
        return self.score_records([_record("chain", question, images, steps)])[0]

    def score_chains(
        self, question: str, images: Images, chains: Sequence[Sequence[str]], batch_size: int = 8
    ) -> list[list[float]]:
        """As `score`, for several chains of one question."""
        records = [_record(f"chain {row}", question, images, steps) for row, steps in enumerate(chains)]
        return self.score_records(records, batch_size)

    def row_examples(self, batch: Batch) -> dict[str, Tensor]:
        """`batch.row_examples` under the names that the modules have in this PRM (peft puts its own in front)."""
        wrapped = self.transformer
        prefix = next((name for name, module in self.named_modules() if module is wrapped), "model")
        return {f"{prefix}.{name.removeprefix('model.')}": rows for name, rows in batch.row_examples.items()}

    @classmethod
    def from_pretrained(cls, path: str | Path, **settings: Any) -> PRM:
        """A PRM from a local folder or hub name; see `dreamprm.prm.storage.load`."""
        from dreamprm.prm.storage import load

        return load(path, **settings)

    def save_pretrained(self, folder: str | Path) -> None:
        """Writes an ordinary model folder that transformers alone loads; see `dreamprm.prm.storage.save`."""
        from dreamprm.prm.storage import save

        save(self, Path(folder))


def _positions_from_tokens(body: nn.Module) -> bool:
    return any(hasattr(module, "create_position_ids_from_input_ids") for module in body.modules())


def _record(key: str, question: str, images: Images, steps: Sequence[str]) -> Record:
    return Record(
        key=key, source="", domain="", group="", question=question, steps=tuple(steps), images=as_images(images)
    )
