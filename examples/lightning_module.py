"""Find the wrong labels among digits in Lightning, by manual optimization: two micro-batches an update.

pip install lightning           python examples/lightning_module.py
"""

from typing import Any

import lightning
import torch
import torch.nn.functional as F
from sklearn.datasets import load_digits
from sklearn.metrics import roc_auc_score
from torch import Tensor
from torch.utils.data import DataLoader, Subset, TensorDataset

from bilevel import Lookahead

MICRO = 25


class Reweighted(lightning.LightningModule):
    """A classifier, and one weight per training example that learns from the trusted ones."""

    def __init__(self, num_train: int, trusted: tuple[Tensor, Tensor]) -> None:
        super().__init__()
        self.automatic_optimization = False
        self.network = torch.nn.Sequential(torch.nn.Linear(64, 64), torch.nn.ReLU(), torch.nn.Linear(64, 10))
        self.raw = torch.nn.Parameter(torch.zeros(num_train))  # a parameter, so that checkpoints have it
        self.trusted = trusted
        self.lookahead: Lookahead | None = None

    def configure_optimizers(self) -> list[torch.optim.Optimizer]:
        return [torch.optim.SGD(self.network.parameters(), lr=0.03), torch.optim.Adam([self.raw], lr=0.05)]

    def on_train_start(self) -> None:
        # The torch optimizer itself: Lightning's wrapper would step it by a closure.
        self.lookahead = Lookahead(self.network, self.trainer.optimizers[0], clip_norm=1.0)

    def training_step(self, batch: Any, batch_idx: int) -> None:
        x, y, index = batch
        lookahead = self.lookahead
        assert lookahead is not None
        optimizer = self.trainer.optimizers[0]
        outer: Any = self.optimizers()[1]  # pyright: ignore[reportIndexIssue]  # Lightning's, which counts global_step
        with lookahead.inner():
            losses = F.cross_entropy(self.network(x), y, reduction="none")  # (B,)
            lookahead.backward(losses, 2 * torch.sigmoid(self.raw[index]) / (2 * MICRO))
        if batch_idx % 2 == 0:
            return
        lookahead.step()  # clips, and steps
        x, y = self.trusted
        outer.zero_grad()
        loss = F.cross_entropy(self.network(x), y)
        lookahead.backward_outer(loss)
        outer.step()
        optimizer.zero_grad()
        self.log("meta_loss", loss)


def main(num_train: int = 400, epochs: int = 40) -> float:
    lightning.seed_everything(0, verbose=False)
    pixels, labels = (torch.tensor(array) for array in load_digits(return_X_y=True))
    wrong = torch.rand(num_train) < 0.4
    labels[:num_train][wrong] = (labels[:num_train][wrong] + torch.randint(1, 10, (int(wrong.sum()),))) % 10
    rows = TensorDataset(pixels.float() / 16, labels, torch.arange(len(labels)))
    x, y, _ = rows[num_train : num_train + 200]
    module = Reweighted(num_train, (x, y))
    trainer = lightning.Trainer(
        max_epochs=epochs, accelerator="cpu", logger=False, enable_checkpointing=False, enable_progress_bar=False,
        enable_model_summary=False,
    )  # fmt: skip
    trainer.fit(module, DataLoader(Subset(rows, range(num_train)), batch_size=MICRO, shuffle=True))
    auc = float(roc_auc_score((~wrong).numpy(), module.raw.detach().numpy()))
    print(f"AUC of the weights against the planted noise: {auc:.3f}")
    return auc


if __name__ == "__main__":
    main()
