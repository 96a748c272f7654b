"""What other trainers make of `dreamprm clean to=HOST`: the host's own reader, in the host's own environment.

    python -m benchmarks.host_files --llamafactory PYTHON --trl_stepwise PYTHON --swift PYTHON --openrlhf PYTHON

Each PYTHON is an interpreter that imports the host (LLaMA-Factory 0.9, TRL up to 1.13, ms-swift 4, OpenRLHF up to
0.9.5, whose later versions have no PRM trainer). The file holds three chains, two of them with images; what comes out
are the tokens or turns that a loss is taken of, which must be those of READ. `to=trl` is in the suite:
tests/dreamprm/commands/test_host_file.py.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
from PIL import Image

from dreamprm.commands.clean import CleanStage, clean
from dreamprm.data.readers import read

ROWS: list[dict[str, Any]] = [
    {"question": "which is red, <image> or <image>?", "steps": ["look", "both"], "labels": [1, 0],
     "images": ["a.png", "b.png"]},
    {"question": "is it red?", "steps": ["yes", "surely"], "labels": [1, None], "images": ["a.png"]},
    {"question": "2 and 2?", "steps": ["2 and 2", "is 5", "answer 5"], "labels": [None, 0, 0.25]},
]  # fmt: skip
WEIGHTS = [1.5, 0.5, 1.0]

LETTERS = """
from tokenizers import Tokenizer, models, pre_tokenizers
from transformers import PreTrainedTokenizerFast
import json, sys
rows = [json.loads(line) for line in open(sys.argv[1])]
texts = [json.dumps(row, ensure_ascii=False).replace('"', " ").replace("\\\\n", " ") for row in rows]
words = sorted({w for text in texts for w in text.split()})
core = Tokenizer(models.WordLevel({w: i for i, w in enumerate(["<pad>", "\\n", *words])}, unk_token="<pad>"))
core.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
tokenizer = PreTrainedTokenizerFast(tokenizer_object=core, pad_token="<pad>", eos_token="<pad>")
"""
READERS = {
    "llamafactory": """
import json, os, sys
from types import SimpleNamespace
from datasets import load_dataset
from llamafactory.data.converter import get_dataset_converter
from llamafactory.data.parser import get_dataset_list
folder, name = os.path.dirname(sys.argv[1]), os.path.basename(sys.argv[1]).removesuffix(".jsonl")
(about,) = get_dataset_list([name], folder)
convert = get_dataset_converter(about.formatting, about, SimpleNamespace(media_dir=folder))
for row in load_dataset("json", data_files=os.path.join(folder, about.dataset_name), split="train"):
    found = convert(row)
    images = [os.path.isfile(p) for p in found["_images"] or []]
    print(json.dumps([[m["content"] for m in found["_prompt"] + found["_response"]], images]))
""",
    "trl_stepwise": LETTERS + """
import os
from datasets import load_dataset
try:
    from trl.experimental.prm import PRMTrainer
except ImportError:
    from trl import PRMTrainer
for row in load_dataset("json", data_files=sys.argv[1], split="train"):
    found = PRMTrainer.tokenize_row(row, tokenizer, "\\n", 512, None, False, False)
    labels = [label for label in found["labels"] if label >= 0]
    images = [os.path.isfile(path) for path in row["images"] or []]
    print(json.dumps([labels, images, row["dreamprm_weight"]]))
""",
    "swift": """
import json, os, sys
from datasets import load_dataset
from swift.dataset.preprocessor import AutoPreprocessor
for row in AutoPreprocessor()(load_dataset("json", data_files=sys.argv[1], split="train")):
    images = [os.path.isfile(image["path"]) for image in row.get("images") or []]
    print(json.dumps([[[m["content"], m.get("loss_scale")] for m in row["messages"]], images]))
""",
    "openrlhf": LETTERS + """
from types import SimpleNamespace
from datasets import load_dataset
from openrlhf.datasets.process_reward_dataset import ProcessRewardDataset
args = SimpleNamespace(input_key="input", label_key="value", placeholder_token="ки", reward_tokens=["+", "-"])
rows = load_dataset("json", data_files=sys.argv[1], split="train")
data = ProcessRewardDataset(rows, tokenizer, 512, SimpleNamespace(args=args))
for i in range(len(data)):
    tokens, _, labels = data[i]
    print(json.dumps([tokenizer.decode(tokens[0]), tokenizer.convert_ids_to_tokens(labels[labels >= 0])]))
""",
}  # fmt: skip
# What each reader must make of the three chains: the unlabelled steps are joined to the next or left out, the weights
# are those of WEIGHTS, and OpenRLHF, which sees no images, is given the last chain alone.
READ: dict[str, list[Any]] = {
    "llamafactory": [
        [["which is red, <image> or <image>?\n\nlook", "+", "both", "-"], [True, True]],
        [["<image>is it red?\n\nyes", "+"], [True]],
        [["2 and 2?\n\n2 and 2\n\nis 5", "-", "answer 5", "-"], []],
    ],
    "trl_stepwise": [[[1, 0], [True, True], 1.5], [[1], [True], 0.5], [[0, 0], [], 1.0]],
    "swift": [
        [[["which is red, <image> or <image>?\n\nlook", None], ["+", 1.5], ["both", None], ["-", 1.5]], [True, True]],
        [[["<image>is it red?\n\nyes", None], ["+", 0.5]], [True]],
        [[["2 and 2?\n\n2 and 2\n\nis 5", None], ["-", 1.0], ["answer 5", None], ["-", 1.0]], []],
    ],
    "openrlhf": [["2 and 2? 2 and 2 is 5 ки answer 5 ки", ["-", "-"]]],
}


def run_folder(folder: Path) -> Path:
    """The files of a run that trained on ROWS."""
    for name in ("a.png", "b.png"):
        Image.new("RGB", (32, 32), "red").save(folder / name)
    data = folder / "train.jsonl"
    data.write_text("".join(json.dumps(row) + "\n" for row in ROWS))
    keys = [record.key for record in read(data)]
    (folder / "run").mkdir()
    pq.write_table(pa.table({"key": keys, "weight": WEIGHTS}), folder / "run" / "weights.parquet")
    (folder / "run" / "config.yaml").write_text(f"data: {{kind: files, path: {data}}}\n")
    return folder / "run"


def main(argv: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    for host in READERS:
        parser.add_argument(f"--{host}", metavar="PYTHON")
    given = {host: python for host, python in vars(parser.parse_args(argv)).items() if python}
    with tempfile.TemporaryDirectory() as name:
        run = run_folder(Path(name))
        for host, python in given.items():
            out = Path(name) / f"{host}.jsonl"
            cut = {"keep": 1.0} if host in ("llamafactory", "openrlhf") else {}
            clean(CleanStage(run_dir=str(run), to=host, out=str(out), **cut))
            done = subprocess.run([python, "-c", READERS[host], str(out)], capture_output=True, text=True)
            print(f"{host}: {'' if done.returncode == 0 else done.stderr[-1500:]}")
            lines = [line for line in done.stdout.splitlines() if line.startswith(("[[", '["'))]
            print("".join(f"    {line}\n" for line in lines), flush=True)
            if done.returncode or [json.loads(line) for line in lines] != READ[host]:
                sys.exit(f"{host} reads something else than {READ[host]}")


if __name__ == "__main__":
    main()
