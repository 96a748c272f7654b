# %% [markdown]
# # A PRM that learns which data to trust
#
# A process reward model (PRM) judges every step of a solution. Here one is trained on labels of a *crowd* that misreads
# pictures as the policy does: its labels are wrong in a consistent way, which a model learns as readily as the truth.
# Known for certain is only whether the final answers of a *meta set* are right. The world is small (drawn charts and
# tables, a tiny InternVL) and everything in it is real: its chains were sampled, its mistakes are the policy's.
#
# ## The run
#
# `make train` is this with all chains; a third of them and half of the updates take a minute.

# %% language="bash"
# set -o pipefail
# dreamprm train +experiment=trust data.num_chains=1000 inner.updates=150 run_dir=runs/trust | tail -n 15

# %% [markdown]
# ## Reading the table
#
# Everything in the run's folder is a file that can be read by other programs. Best-of-N lets the PRM choose among N
# candidates of a test question; the cold start is the same PRM before anything was learned about trust.

# %%
import json
import textwrap
from pathlib import Path

import matplotlib.pyplot as plt
import pyarrow.parquet as pq
from sklearn.metrics import roc_auc_score

from dreamprm import PRM

results = json.loads(Path("runs/trust/results.json").read_text())
counts = ["1", "2", "4", "8"]
curves = {
    "PRM, weighted vote": results["best_of_n"]["weighted_vote"],
    "PRM, best of N": results["best_of_n"]["prm"],
    "self-consistency (no PRM)": results["best_of_n"]["self_consistency"],
    "PRM after the cold start": results["cold_start"]["best_of_n"]["prm"],
}

# %% alt="Accuracy by number of candidates: the PRM's curves rise above the plain vote's, the cold start's falls."
figure, axes = plt.subplots(figsize=(6, 3.2))
for shift, (name, row) in enumerate(curves.items()):
    values = [row[count]["value"] for count in counts]
    spread = [
        [row[count]["value"] - row[count]["low"] for count in counts],
        [row[count]["high"] - row[count]["value"] for count in counts],
    ]
    axes.errorbar([place + 0.06 * shift for place in range(4)], values, spread, marker="o", capsize=2, label=name)
axes.set(xticks=range(4), xticklabels=counts, xlabel="candidates per question", ylabel="share answered rightly")
axes.legend(fontsize=8, loc="center left", bbox_to_anchor=(1, 0.5))
plt.show()

# %% [markdown]
# Choosing by a PRM that believed the crowd gets *worse* with more candidates: it prefers what the crowd misread. The
# bars are 95 % intervals over the 300 test questions; where two overlap, this run alone does not tell them apart.
#
# ## Does it trust the right labels?
#
# In the embedded world the truth is known, in a column that training never sees (`known_good`: no label of the chain is
# wrong). With data of your own this column is empty, and the meta set is all there is.

# %% alt="Histograms of the weights of chains with right labels and with wrong ones: the right ones lie higher."
rows = pq.read_table("runs/trust/weights.parquet").to_pydict()
weights, good = rows["weight"], rows["known_good"]
figure, axes = plt.subplots(figsize=(6, 2.6))
parts = [[w for w, g in zip(weights, good, strict=True) if g == kind] for kind in (True, False)]
axes.hist(parts, bins=20, label=["all labels right", "some label wrong"])
axes.set(xlabel="weight of the chain", ylabel="chains")
axes.legend()
plt.show()
print(f"{1 - sum(good) / len(good):.0%} of the chains have a wrong label")
print(f"AUC of the weights: {roc_auc_score(good, weights):.3f};", end=" ")
print(f"of minus the cold start's loss: {roc_auc_score(good, [-loss for loss in rows['loss']]):.3f}")

# %% [markdown]
# ## What the verdict means

# %%
print(textwrap.fill(results["verdict"], 80))

# %% [markdown]
# It is computed, not written: it compares the PRM with its own cold start on questions that training did not see, and
# speaks of a gain only where an interval lies above zero.
#
# * **It says** whether this PRM is better than before, by how much, and on which questions that was seen.
# * **It does not say** that the weights did it. This recipe also trains on the meta set's outcomes, and that alone
#   carries most of the gain: `weigher=uniform` is the same run without weights. Over five seeds of the full size
#   best-of-8 is .593 with weights and .555 without, where no selection gives .386
#   ([report](../../benchmarks/reports/2026-11-26-evidence.md)).
# * **It does not say** that your data will gain: on clean labels the weights gain nothing, and a small meta set gives
#   no signal; then the verdict is "the meta set gave no usable signal: weights are not to be trusted".
#
# ## Score something

# %%
prm = PRM.from_pretrained("runs/trust/prm")
question, steps = "What is 2 + 3?", ["2 + 3 = 5.", "Answer: 5"]
print([round(score, 3) for score in prm.score(question, [], steps)], "(one number per step)")

# %% [markdown]
# `runs/trust/explorer/index.html` lists all training chains, to sort by weight, search and filter; `dreamprm clean`
# writes the training file again with weights, or in the columns of another trainer. With data of your own:
# [your data](../your-data.md).
