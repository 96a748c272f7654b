"""Find the wrong labels among digits with transformers' Trainer: a plain run, a weigher, and five arguments.

python examples/reweighting_trainer.py
"""

from collections.abc import Mapping

import torch
import torch.nn.functional as F
from sklearn.datasets import load_digits
from sklearn.metrics import roc_auc_score
from torch import Tensor
from transformers import TrainingArguments

from dreamprm.integrations.reweighting_trainer import ReweightingTrainer


class Table(torch.nn.Module):
    """One weight per training example, 2 sigmoid(raw), which begins at 1."""

    def __init__(self, num_examples: int) -> None:
        super().__init__()
        self.raw = torch.nn.Parameter(torch.zeros(num_examples))

    def forward(self, inputs: Mapping[str, Tensor]) -> Tensor:
        return 2 * torch.sigmoid(self.raw[inputs["index"]])


def losses(model: torch.nn.Module, inputs: Mapping[str, Tensor]) -> Tensor:
    return F.cross_entropy(model(inputs["pixels"]), inputs["labels"], reduction="none")  # (B,)


def main(num_train: int = 400, epochs: float = 40, output_dir: str = "runs/reweighting_trainer") -> float:
    torch.manual_seed(0)
    pixels, labels = (torch.tensor(array) for array in load_digits(return_X_y=True))
    wrong = torch.rand(num_train) < 0.4
    labels[:num_train][wrong] = (labels[:num_train][wrong] + torch.randint(1, 10, (int(wrong.sum()),))) % 10
    images = pixels.float() / 16
    rows = [{"pixels": x, "labels": y, "index": i} for i, (x, y) in enumerate(zip(images, labels, strict=True))]
    weigher = Table(num_train)
    trainer = ReweightingTrainer(
        torch.nn.Sequential(torch.nn.Linear(64, 64), torch.nn.ReLU(), torch.nn.Linear(64, 10)),
        TrainingArguments(
            output_dir, num_train_epochs=epochs, per_device_train_batch_size=50, optim="sgd", learning_rate=0.03,
            lr_scheduler_type="constant", remove_unused_columns=False, report_to="none", save_strategy="no",
            use_cpu=True, disable_tqdm=True,
        ),
        train_dataset=rows[:num_train],
        example_losses=losses,
        weigher=weigher,
        weigher_optimizer=torch.optim.Adam(weigher.parameters(), lr=0.05),
        meta_dataset=rows[num_train : num_train + 300],
        meta_batch_size=200,
    )  # fmt: skip
    trainer.train()
    auc = float(roc_auc_score((~wrong).numpy(), weigher.raw.detach().numpy()))
    print(f"AUC of the weights against the planted noise: {auc:.3f}")
    return auc


if __name__ == "__main__":
    main()
