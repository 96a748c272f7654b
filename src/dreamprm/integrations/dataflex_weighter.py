"""A weighter for DataFlex (on LLaMA-Factory): one learned weight per training example, the host's eval set as meta set.

    python -m dreamprm.integrations.dataflex_weighter train my_run.yaml          # in the place of dataflex-cli

    # my_run.yaml                              # components.yaml
    train_type: dynamic_weight                 weighters:
    component_name: bilevel                      bilevel:
    components_cfg_file: components.yaml           params: {lr: 0.1, meta_batch_size: 16}
    eval_dataset: trusted

The weight of example i is 2 σ(raw_i), which begins at 1; raw learns by the hypergradient of the mean loss of the eval
set (`reweighting.py` has the equations). At the end `weights.parquet` lies in the host's output_dir: row (of the host's
train_dataset), weight. Before the host's `warmup_step` all weigh 1.
"""

from __future__ import annotations

import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from transformers import TrainerCallback

from dreamprm.errors import UserError
from dreamprm.integrations.reweighting import Reweighting, refuse_meta, tokenized
from dreamprm.integrations.token_table import TokenTable, token_losses

__all__ = ["BilevelWeighter", "main", "register"]


class BilevelWeighter:
    """What DataFlex builds from its YAML and calls for every micro-batch.

    Args:
        dataset, eval_dataset: the host's tokenized data; the second is the meta set.
        lr: Adam's rate of the weights' logits.
        meta_batch_size: trusted examples per update; None: the host's per_device_train_batch_size.
        every: one update of the weights per so many of the model.

    Raises UserError where the host has no eval set or several, and for batches that are not rows of `dataset`.
    """

    def __init__(
        self, dataset: Any, eval_dataset: Any, lr: float = 0.1, meta_batch_size: int | None = None, every: int = 1
    ) -> None:
        refuse_meta(eval_dataset)
        self.table = TokenTable(tokenized(dataset))
        self.meta_dataset = eval_dataset
        self.lr, self.meta_batch_size, self.every = float(lr), meta_batch_size, every
        self.reweighting: Reweighting | None = None

    def get_weighted_loss(
        self, losses: Tensor, *, ctx: Any = None, model: Any = None, inputs: Mapping[str, Any] | None = None
    ) -> Tensor:
        """Σ_i w_i ℓ_i / B, as DataFlex's contract asks; `training_step` is what learns."""
        if inputs is None:
            raise UserError("get_weighted_loss needs the inputs, by which an example's weight is found")
        return (self.table(inputs) * losses).mean()

    def training_step(
        self, ctx: Any, model: nn.Module, inputs: Any, num_items_in_batch: Any = None, use_weighter: bool = False
    ) -> Tensor:
        """A micro-batch of the host's: ctx is its trainer, num_items_in_batch is not used."""
        if self.reweighting is None:
            self._begin(ctx)
        assert self.reweighting is not None
        model.train()
        return self.reweighting.micro_batch(model, ctx._prepare_inputs(inputs), learn=use_weighter)

    def _begin(self, ctx: Any) -> None:
        self.reweighting = Reweighting(
            ctx,
            example_losses=token_losses,
            weigher=self.table,
            meta_dataset=self.meta_dataset,
            meta_batch_size=self.meta_batch_size,
            weigher_optimizer=torch.optim.Adam(self.table.parameters(), lr=self.lr),
            weigher_every=self.every,
        )
        if ctx.state.global_step:
            self.reweighting.load(_resumed_from(ctx))
        self.reweighting.begin()
        ctx.add_callback(_Saving(self))


class _Saving(TrainerCallback):
    def __init__(self, weighter: BilevelWeighter) -> None:
        self.weighter = weighter

    def on_save(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        assert self.weighter.reweighting is not None
        self.weighter.reweighting.save(Path(args.output_dir) / f"checkpoint-{state.global_step}")

    def on_log(self, args: Any, state: Any, control: Any, logs: Any = None, **_: Any) -> None:
        assert self.weighter.reweighting is not None
        if logs is not None and "loss" in logs:
            logs.update(self.weighter.reweighting.numbers)
            state.log_history[-1].update(self.weighter.reweighting.numbers)

    def on_train_end(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        import pyarrow as pa
        import pyarrow.parquet as pq

        table = self.weighter.table
        rows, weights = list(range(len(table.own))), table.weights()
        pq.write_table(pa.table({"row": rows, "weight": weights}), Path(args.output_dir) / "weights.parquet")


def _resumed_from(ctx: Any) -> Path:
    given = ctx.args.resume_from_checkpoint
    return Path(given) if isinstance(given, str) else Path(ctx.args.output_dir) / f"checkpoint-{ctx.state.global_step}"


def register(name: str = "bilevel") -> None:
    """Make the weighter known to DataFlex. Raises UserError where DataFlex is not installed."""
    try:
        from dataflex.core.registry import register_weighter  # pyright: ignore[reportMissingImports]
    except ImportError as error:
        raise UserError("DataFlex is not installed here: pip install dataflex") from error
    register_weighter(name)(BilevelWeighter)


def main() -> None:
    """`dataflex-cli` with this weighter known to it."""
    try:
        register()
    except UserError as error:
        sys.exit(str(error))
    from dataflex.cli import main as dataflex  # pyright: ignore[reportMissingImports]

    dataflex()


if __name__ == "__main__":
    main()
