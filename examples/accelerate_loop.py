"""Find the wrong labels among digits in a plain loop with accelerate, two micro-batches an update.

python examples/accelerate_loop.py
"""

import torch
import torch.nn.functional as F
from accelerate import Accelerator
from sklearn.datasets import load_digits
from sklearn.metrics import roc_auc_score
from torch import Tensor
from torch.utils.data import DataLoader, TensorDataset

from bilevel import Lookahead


def main(num_train: int = 400, epochs: int = 40, micro: int = 25) -> float:
    torch.manual_seed(0)
    pixels, labels = (torch.tensor(array) for array in load_digits(return_X_y=True))
    wrong = torch.rand(num_train) < 0.4
    labels[:num_train][wrong] = (labels[:num_train][wrong] + torch.randint(1, 10, (int(wrong.sum()),))) % 10
    rows = TensorDataset(pixels.float() / 16, labels, torch.arange(len(labels)))
    accelerator = Accelerator(cpu=True)
    model = torch.nn.Sequential(torch.nn.Linear(64, 64), torch.nn.ReLU(), torch.nn.Linear(64, 10))
    train = DataLoader(torch.utils.data.Subset(rows, range(num_train)), batch_size=micro, shuffle=True)
    model, optimizer, train = accelerator.prepare(model, torch.optim.SGD(model.parameters(), lr=0.03), train)
    raw = torch.zeros(num_train, device=accelerator.device, requires_grad=True)
    outer = torch.optim.Adam([raw], lr=0.05)
    # The module itself, and the optimizer as accelerate hands it back.
    lookahead = Lookahead(accelerator.unwrap_model(model), optimizer, clip_norm=1.0)

    def losses(x: Tensor, y: Tensor) -> Tensor:
        with accelerator.autocast():
            return F.cross_entropy(model(x), y, reduction="none")  # (B,)

    for _ in range(epochs):
        for number, (x, y, index) in enumerate(train):
            with lookahead.inner():  # in the place of accelerator.accumulate and accelerator.backward
                lookahead.backward(losses(x, y), 2 * torch.sigmoid(raw[index]) / (2 * micro))
            if number % 2 == 0:
                continue
            lookahead.step()  # clips, and steps
            picks = num_train + torch.randperm(300)[:200]
            x, y, _ = (part.to(accelerator.device) for part in rows[picks])
            outer.zero_grad()
            lookahead.backward_outer(losses(x, y).mean())
            outer.step()
            optimizer.zero_grad()
    auc = float(roc_auc_score((~wrong).numpy(), raw.detach().cpu().numpy()))
    print(f"AUC of the weights against the planted noise: {auc:.3f}")
    return auc


if __name__ == "__main__":
    main()
