# %% [markdown]
# # Reweight your own fine-tuning
#
# A classifier of texts, fine-tuned by transformers' `Trainer`. 40 % of the training labels are wrong; 200 examples were
# looked at by hand and are right. One class goes before the trainer's, one argument more is given, and the run ends
# with a weight for every training example, a picture of them, and a cleaned file. In TRL, Lightning, accelerate and
# DataFlex it is the same: [your trainer](../your-trainer.md).
#
# ## The data
#
# Passages of the documentation of four libraries that are installed here anyway, so that nothing is downloaded. The
# label is the library. The names that would give it away are taken out.

# %%
import inspect
import json
import re
from collections import Counter
from importlib import import_module
from pathlib import Path

import matplotlib.pyplot as plt
import pyarrow as pa
import pyarrow.parquet as pq
import torch
import torch.nn.functional as F
from sklearn.metrics import roc_auc_score
from tokenizers import Tokenizer, models, pre_tokenizers
from transformers import (
    PreTrainedTokenizerFast,
    PrinterCallback,
    Trainer,
    TrainingArguments,
)

from dreamprm.integrations.reweighting_trainer import ReweightingMixin

MODULES = {
    "numpy": ("numpy", "numpy.linalg", "numpy.fft", "numpy.random"),
    "scipy": ("scipy.stats", "scipy.signal", "scipy.optimize"),
    "sklearn": ("sklearn.linear_model", "sklearn.ensemble", "sklearn.preprocessing", "sklearn.metrics"),
    "torch": ("torch", "torch.nn", "torch.optim", "torch.linalg"),
}


def passages(modules):
    """Passages of at least 40 words, each once."""
    found = {}
    for module in map(import_module, modules):
        for name in sorted(name for name in dir(module) if not name.startswith("_")):
            text = (inspect.getdoc(getattr(module, name)) or "").split("Examples")[0].lower()
            words = [word for word in re.findall(r"[a-z]{3,}", text) if word not in MODULES]
            found |= {" ".join(words[i : i + 40]): None for i in range(0, len(words) - 39, 40)}
    return list(found)


torch.manual_seed(0)
rows = []
for label, modules in enumerate(MODULES.values()):
    texts = passages(modules)
    rows += [{"text": texts[i], "label": label} for i in torch.randperm(len(texts))[:700].tolist()]
rows = [rows[i] for i in torch.randperm(len(rows)).tolist()]
train, trusted, test = rows[:1200], rows[1200:1400], rows[1400:]

wrong = [bool(torch.rand(()) < 0.4) for _ in train]  # what a user does not know; read again only to judge the weights
for row, is_wrong in zip(train, wrong, strict=True):
    if is_wrong:
        row["label"] = (row["label"] + int(torch.randint(1, 4, ()))) % 4
print(f"{len(train)} to train on, {sum(wrong)} of them wrong; {len(trusted)} trusted; {len(test)} to test")
print(json.dumps(train[0])[:110], "…")

# %% [markdown]
# ## Your trainer as it is
#
# A bag of word embeddings stands for your `from_pretrained`, because nothing is downloaded here; it takes what a model
# of transformers takes.

# %%
counts = Counter(word for row in rows for word in row["text"].split())
words = ["[PAD]", "[UNK]", *sorted(word for word, count in counts.items() if count > 1)]
core = Tokenizer(models.WordLevel({word: i for i, word in enumerate(words)}, unk_token="[UNK]"))
core.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
tokenizer = PreTrainedTokenizerFast(tokenizer_object=core, pad_token="[PAD]", unk_token="[UNK]")


def tokenized(rows):
    return [{**tokenizer(row["text"], return_token_type_ids=False), "labels": row["label"]} for row in rows]


class Bag(torch.nn.Module):
    def __init__(self):
        super().__init__()
        torch.manual_seed(0)
        self.words, self.head = torch.nn.EmbeddingBag(len(words), 32, padding_idx=0), torch.nn.Linear(32, 4)

    def forward(self, input_ids, attention_mask, labels=None):
        logits = self.head(self.words(input_ids))
        return {"loss": None if labels is None else F.cross_entropy(logits, labels), "logits": logits}


ARGUMENTS = TrainingArguments(
    "run", num_train_epochs=20, per_device_train_batch_size=50, learning_rate=3e-3, weight_decay=0.0,
    lr_scheduler_type="constant", seed=0, use_cpu=True, report_to="none", save_strategy="no",
    logging_strategy="no", disable_tqdm=True,
)  # fmt: skip


def accuracy(trainer, rows=test):
    logits = trainer.predict(tokenized(rows)).predictions
    return float((logits.argmax(-1) == [row["label"] for row in rows]).mean())


def plain(rows):
    trainer = Trainer(Bag(), ARGUMENTS, train_dataset=tokenized(rows), processing_class=tokenizer)
    trainer.remove_callback(PrinterCallback)
    trainer.train()
    return trainer


by_all = plain(train)
print(f"trained on all of them: accuracy {accuracy(by_all):.3f}")
print(f"trained on the trusted ones alone: accuracy {accuracy(plain(trusted * 6)):.3f}")  # as many updates

# %% [markdown]
# ## The same trainer, with weights
#
# The mixin goes before the host's class. It asks for one loss per *example*, not averaged over the batch, and takes the
# trusted examples as the host's `eval_dataset`. Everything else is the host's.


# %%
class MyTrainer(ReweightingMixin, Trainer):
    pass


def example_losses(model, inputs):
    logits = model(input_ids=inputs["input_ids"], attention_mask=inputs["attention_mask"])["logits"]
    return F.cross_entropy(logits, inputs["labels"], reduction="none")


trainer = MyTrainer(
    Bag(), ARGUMENTS, train_dataset=tokenized(train), eval_dataset=tokenized(trusted), processing_class=tokenizer,
    example_losses=example_losses, meta_batch_size=len(trusted), weigher_rate=0.1,
)  # fmt: skip
trainer.remove_callback(PrinterCallback)
trainer.train()
weights = trainer.weigher.weights()  # one per training example; all began at 1
print(f"trained with weights: accuracy {accuracy(trainer):.3f}")
print("the sum rule's residual at the last update:", trainer.lookahead.report["sum_rule"])

# %% alt="Histogram of the weights: most wrong labels end near 0, most right ones near 2, some on the other side."
right = [not is_wrong for is_wrong in wrong]
figure, axes = plt.subplots(figsize=(6, 2.6))
parts = [[w for w, r in zip(weights, right, strict=True) if r == kind] for kind in (True, False)]
axes.hist(parts, bins=20, range=(0, 2), label=["right labels", "wrong labels"])
axes.set(xlabel="weight", ylabel="examples")
axes.legend()
plt.show()
print(f"AUC of the weights against the planted noise: {roc_auc_score(right, weights):.3f}")

# %% [markdown]
# ## A cleaned file
#
# What ended far below its first weight is left out; what is left trains any model, by any trainer.

# %%
pq.write_table(pa.table({"row": range(len(train)), "weight": weights}), "weights.parquet")
kept = [row for row, weight in zip(train, weights, strict=True) if weight >= 0.5]
Path("cleaned.jsonl").write_text("".join(json.dumps(row) + "\n" for row in kept))
still_wrong = sum(is_wrong for is_wrong, weight in zip(wrong, weights, strict=True) if weight >= 0.5)
print(f"{len(kept)} rows are kept; of the {sum(wrong)} wrong ones {still_wrong} are left")
print(f"trained on the cleaned file: accuracy {accuracy(plain(kept)):.3f}")
print(f"and on the trusted rows too: accuracy {accuracy(plain(kept + trusted)):.3f}")

# %% [markdown]
# ## Is it worth it for you?
#
# One run is one run. The examples `noisy_text.py`, `noisy_digits.py` and `poisoned_sft.py` repeat this over five seeds
# beside what is simpler (a small loss, the trusted examples alone, both together), and
# [their report](../../benchmarks/reports/2026-11-26-worked-examples.md) has a case where a small loss is better. Try
# the two simple ones first; [which method when](../which-method.md) says what else to ask. Next:
# [a PRM that learns which data to trust](prm.py).
