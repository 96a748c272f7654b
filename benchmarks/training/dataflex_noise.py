"""DataFlex on LLaMA-Factory, unchanged, with `bilevel` as its weighter: does it find poisoned answers, at what cost?

    python -m benchmarks.training.dataflex_noise --python ENV/bin/python --seeds 5

ENV is an environment of its own in which `dataflex-cli` starts (DataFlex 1.1 and LLaMA-Factory 0.9.5 pin older
versions than this project: their pins are not followed, see the report). Each run is a process of the host's.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import subprocess
import tempfile
from collections.abc import Sequence
from pathlib import Path
from statistics import mean, stdev

import pyarrow.parquet as pq
import torch
from scipy.stats import t
from sklearn.metrics import roc_auc_score

from benchmarks.training.poisoned_answers import Poisoned, accuracy, write

RUN = {
    "model_name_or_path": "model", "stage": "sft", "do_train": True, "finetuning_type": "full", "dataset": "poisoned",
    "eval_dataset": "trusted", "dataset_dir": ".", "template": "empty", "cutoff_len": 32, "overwrite_output_dir": True,
    "per_device_train_batch_size": 50, "learning_rate": 3e-4, "lr_scheduler_type": "constant", "num_train_epochs": 30,
    "logging_steps": 40, "save_steps": 180, "report_to": "none", "use_cpu": True, "plot_loss": False,
    "disable_gradient_checkpointing": True, "train_type": "dynamic_weight", "components_cfg_file": "components.yaml",
    "warmup_step": 0,
}  # fmt: skip
WITH_OURS = ("-m", "dreamprm.integrations.dataflex_weighter")
WEIGHTERS = {
    "bilevel": {"params": {"lr": 0.2, "meta_batch_size": 32}},
    "loss": {"params": {"strategy": "linupper", "delta": 1.0}},
}


def host(python: str, folder: Path, out: str, module: Sequence[str] = WITH_OURS, **changes: object) -> str:
    """One run of DataFlex, what it printed. Raises RuntimeError with the host's last lines where it fails."""
    (folder / f"{out}.yaml").write_text(json.dumps(RUN | {"output_dir": out} | changes))
    settings = {"DISABLE_VERSION_CHECK": "1", "HF_HUB_OFFLINE": "1", "OMP_NUM_THREADS": "1"}
    command = [python, *module, "train", f"{out}.yaml"]
    done = subprocess.run(command, cwd=folder, env=os.environ | settings, capture_output=True, text=True)
    if done.returncode:
        raise RuntimeError("\n".join((done.stdout + done.stderr).splitlines()[-15:]))
    return done.stdout


def auc(path: Path, data: Poisoned) -> float:
    weights = pq.read_table(path).to_pydict()["weight"]
    return float(roc_auc_score([not is_bad for is_bad in data.bad], weights))


def resumes_exactly(python: str, folder: Path) -> bool:
    """A run that goes on from its checkpoint in the middle ends at the weights of the run that was not interrupted."""
    (folder / "again").mkdir()
    shutil.copytree(folder / "bilevel" / "checkpoint-180", folder / "again" / "checkpoint-180")
    host(python, folder, "again", component_name="bilevel", resume_from_checkpoint="again/checkpoint-180")
    whole, again = (pq.read_table(folder / name / "weights.parquet") for name in ("bilevel", "again"))
    return whole.equals(again)


def interval(values: list[float]) -> str:
    half = t.ppf(0.975, len(values) - 1) * stdev(values) / len(values) ** 0.5 if len(values) > 1 else float("nan")
    return f"{mean(values):.3f} ± {half:.3f}"


def main(argv: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--python", required=True, help="the interpreter of DataFlex's environment")
    parser.add_argument("--seeds", type=int, default=5)
    settings = parser.parse_args(argv)
    torch.set_num_threads(1)
    found: dict[str, list[float]] = {}
    for seed in range(settings.seeds):
        with tempfile.TemporaryDirectory() as name:
            folder = Path(name)
            data = write(folder, seed)
            (folder / "components.yaml").write_text(json.dumps({"weighters": WEIGHTERS}))
            runs = {
                "no weights": {"component_name": "loss", "warmup_step": 10**6},
                "loss (DataFlex's own)": {"component_name": "loss"},
                "trusted data alone": {"component_name": "loss", "warmup_step": 10**6, "dataset": "trusted"},
                "bilevel": {"component_name": "bilevel"},
            }
            for arm, changes in runs.items():
                out = arm.split(" ")[0]
                host(settings.python, folder, out, **changes)
                took = json.loads((folder / out / "train_results.json").read_text())["train_runtime"]
                found.setdefault(f"{arm}: accuracy", []).append(accuracy(folder / out, data.test))
                found.setdefault(f"{arm}: seconds", []).append(took)
            found.setdefault("bilevel: AUC of the weights", []).append(
                auc(folder / "bilevel" / "weights.parquet", data)
            )
            if not seed:
                print("resume is exact:", resumes_exactly(settings.python, folder), flush=True)
        print({name: round(values[-1], 3) for name, values in found.items()}, flush=True)
    for name, values in found.items():
        print(f"{name:<32} {interval(values)}")


if __name__ == "__main__":
    main()
