"""Beside Bergson's MAGIC: how the final loss moves with each example's weight, through a whole fine-tuning run.

    pip install bergson       # in an environment of its own; it brings its own torch
    python -m benchmarks.engine.magic --steps 12 --report benchmarks/reports/DATE-magic.md

A causal language model (Qwen2, two layers) is trained on one Markov chain and fine-tuned by AdamW on sequences of which
half come from a second chain, that of the query set, and half are noise. Four ways to d(query loss)/d(weight):

    bergson     MAGIC (Ilyas & Engstrom, 2504.16430): checkpoints, and each step again with its graph on the way back
    unrolled    bilevel.Unrolled: hand-written reverse mode over functional optimizers, K copies and one graph
    lookahead   bilevel.Lookahead(…, "unroll", steps=K): the live torch.optim.AdamW, K graphs
    one_step    bilevel.Lookahead ghost: after each step that step's own examples, against the query loss there and then

One process each, so that peak memory is that contestant's own. In one file, because the four are read side by side.
"""

from __future__ import annotations

import argparse
import json
import logging
import os
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

VOCABULARY, LENGTH, BATCH, NUM_QUERY = 64, 24, 8, 16
LR, BETAS, EPS, EPS_ROOT, DECAY = 1e-3, (0.9, 0.99), 1e-8, 1e-17, 0.01
CONTESTANTS = ("bergson", "unrolled", "lookahead", "one_step")


def model_of(width: int, dtype: torch.dtype) -> Any:
    from transformers import Qwen2Config, Qwen2ForCausalLM

    torch.manual_seed(0)
    config = Qwen2Config(
        vocab_size=VOCABULARY, hidden_size=width, intermediate_size=2 * width, num_hidden_layers=2,
        num_attention_heads=4, num_key_value_heads=4, max_position_embeddings=LENGTH, tie_word_embeddings=False,
        attn_implementation="eager",
    )  # fmt: skip
    return Qwen2ForCausalLM(config).to(dtype)


def chain(seed: int, count: int) -> Tensor:
    """(count, LENGTH) tokens of a Markov chain; seed 0: uniform noise."""
    draw = torch.Generator().manual_seed(seed)
    table = (
        torch.zeros(VOCABULARY, VOCABULARY) if seed == 0 else 3 * torch.randn(VOCABULARY, VOCABULARY, generator=draw)
    )
    rows = [torch.randint(VOCABULARY, (count,), generator=draw)]
    for _ in range(LENGTH - 1):
        rows.append(torch.multinomial(table[rows[-1]].softmax(-1), 1, generator=draw).squeeze(-1))
    return torch.stack(rows, 1)


def losses(model: Any, tokens: Tensor, params: dict[str, Tensor] | None = None) -> Tensor:
    """(B,) mean over each sequence."""
    call: Callable[..., Any] = (
        model if params is None else lambda **kw: torch.func.functional_call(model, params, (), kw)
    )
    logits = call(input_ids=tokens, use_cache=False).logits[:, :-1]
    flat = F.cross_entropy(logits.reshape(-1, VOCABULARY), tokens[:, 1:].reshape(-1), reduction="none")
    return flat.reshape(len(tokens), -1).mean(1)


def problem(steps: int, width: int, dtype: torch.dtype) -> tuple[Any, Tensor, Tensor, Tensor]:
    """The trained model, the fine-tuning sequences, whether each is of the query's kind, and the query set."""
    model = model_of(width, torch.float32)
    optimizer = torch.optim.AdamW(model.parameters(), lr=3e-3)
    first = chain(1, 512)
    for k in range(60):
        optimizer.zero_grad()
        losses(model, first[(k % 16) * 32 : (k % 16) * 32 + 32]).mean().backward()
        optimizer.step()
    count = steps * BATCH
    alike = torch.arange(count) % 2 == 0
    tokens = torch.where(alike[:, None], chain(2, count), chain(0, count))
    return model.to(dtype), tokens, alike, chain(2, NUM_QUERY + count)[count:]


def adamw(model: Any) -> torch.optim.Optimizer:
    return torch.optim.AdamW(model.parameters(), lr=LR, betas=BETAS, eps=EPS, weight_decay=DECAY)


# -- the contestants -----------------------------------------------------------------------------------------------


def bergson(model: Any, tokens: Tensor, query: Tensor) -> Tensor:
    import torchopt
    from bergson.magic.data_stream import DataStream
    from bergson.magic.trainer import BackwardState, Trainer
    from bergson.utils import weighted_causal_lm_ce
    from datasets import Dataset

    model.loss_function = weighted_causal_lm_ce
    dtype = next(model.parameters()).dtype
    optimizer = torchopt.adamw(LR, betas=BETAS, eps=EPS, eps_root=EPS_ROOT, weight_decay=DECAY)
    trainer, state = Trainer.initialize(model, optimizer)
    stream = DataStream(Dataset.from_dict({"input_ids": tokens.tolist()}), BATCH)
    stream.weights = torch.nn.Parameter(stream.weights.to(dtype))
    with tempfile.TemporaryDirectory() as folder:
        state = trainer.train(state, stream, save_dir=folder, save_mode="sqrt")
        with state.activate(model) as params:
            grads = torch.autograd.grad(losses(model, query).mean(), list(params.values()))
        found = dict(zip(params, grads, strict=True))
        state.detach_()
        stream.requires_grad = True
        start = BackwardState(
            found,
            [torch.zeros_like(t) for t in state.differentiable_tensors()[len(found) :]],
            torch.zeros_like(stream.weights),
        )
        return trainer.backward(folder, stream, start, state, save_mode="sqrt").weight_grads.detach()


def unrolled(model: Any, tokens: Tensor, query: Tensor) -> Tensor:
    import bilevel

    size = len(tokens) // BATCH

    def inner(params: dict[str, Tensor], hyper: dict[str, Tensor], step: int) -> Tensor:
        part = slice(step * BATCH, (step + 1) * BATCH)
        return (hyper["weights"][part] * losses(model, tokens[part], params)).mean()

    def outer(params: dict[str, Tensor], hyper: dict[str, Tensor], batch: Tensor) -> Tensor:
        return losses(model, batch, params).mean()

    params = {name: p.detach() for name, p in model.named_parameters()}
    hyper = {"weights": torch.ones(len(tokens), dtype=next(iter(params.values())).dtype)}
    method = bilevel.Unrolled(
        bilevel.AdamW(lr=LR, betas=BETAS, eps=EPS, weight_decay=DECAY),
        product="vjp",
        checkpoint_every=max(1, round(size**0.5)),
    )
    found = bilevel.hypergradient(bilevel.Bilevel(inner, outer), params, hyper, list(range(size)), query, method=method)
    return found.grad["weights"]


def lookahead(model: Any, tokens: Tensor, query: Tensor) -> Tensor:
    from bilevel import Lookahead

    steps, optimizer = len(tokens) // BATCH, adamw(model)
    weights = torch.ones(len(tokens), dtype=next(model.parameters()).dtype, requires_grad=True)
    window = Lookahead(model, optimizer, "unroll", steps=steps, check="off")
    for k in range(steps):
        part = slice(k * BATCH, (k + 1) * BATCH)
        optimizer.zero_grad()
        with window.inner():
            window.backward(losses(model, tokens[part]), weights[part] / BATCH)
        window.step()
    window.backward_outer(losses(model, query).mean())
    assert weights.grad is not None
    return weights.grad


def one_step(model: Any, tokens: Tensor, query: Tensor) -> Tensor:
    from bilevel import Lookahead

    steps, optimizer = len(tokens) // BATCH, adamw(model)
    weights = torch.ones(len(tokens), dtype=next(model.parameters()).dtype, requires_grad=True)
    ahead = Lookahead(model, optimizer, "ghost", check="off")
    for k in range(steps):
        part = slice(k * BATCH, (k + 1) * BATCH)
        optimizer.zero_grad()
        with ahead.inner():
            ahead.backward(losses(model, tokens[part]), weights[part] / BATCH)
        ahead.step()
        ahead.backward_outer(losses(model, query).mean())
    assert weights.grad is not None
    return weights.grad


def plain(model: Any, tokens: Tensor, query: Tensor) -> Tensor:
    """The floor: training alone."""
    optimizer = adamw(model)
    for k in range(len(tokens) // BATCH):
        optimizer.zero_grad()
        losses(model, tokens[k * BATCH : (k + 1) * BATCH]).mean().backward()
        optimizer.step()
    return torch.zeros(len(tokens))


# -- measuring -----------------------------------------------------------------------------------------------------


def measure(name: str, steps: int, width: int, dtype: torch.dtype) -> dict[str, Any]:
    """In this process: the gradient, seconds (the better of two runs), and the peak of memory over the start."""
    torch.set_num_threads(1)
    logging.disable(logging.WARNING)
    seconds, found = [], torch.zeros(())
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    for _ in range(2):
        model, tokens, _, query = problem(steps, width, dtype)
        if not seconds:
            before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        start = time.perf_counter()
        found = globals()[name](model, tokens, query)
        seconds.append(time.perf_counter() - start)
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before
    return {"grad": found.double().tolist(), "seconds": min(seconds), "peak_mb": peak / 1024}


def apart(name: str, steps: int, width: int, dtype: str) -> dict[str, Any]:
    """In a process of its own."""
    command = [sys.executable, "-W", "ignore", "-m", "benchmarks.engine.magic", "--one", name]
    command += ["--steps", str(steps), "--width", str(width), "--dtype", dtype]
    done = subprocess.run(command, capture_output=True, text=True, env={**os.environ, "TQDM_DISABLE": "1"})
    if done.returncode:
        return {"error": done.stderr.strip().splitlines()[-1]}
    return json.loads(done.stdout.strip().splitlines()[-1])


def rank_correlation(one: Tensor, other: Tensor) -> float:
    ranks = [x.argsort().argsort().double() for x in (one, other)]
    return float(torch.corrcoef(torch.stack(ranks))[0, 1])


def area(scores: Tensor, good: Tensor) -> float:
    """Area under the ROC curve of -d(loss)/d(weight) for the examples of the query's kind."""
    better = (-scores[good])[:, None] > (-scores[~good])[None]
    return float(better.double().mean())


def differences(steps: int, width: int, places: list[int]) -> Tensor:
    """The truth on a few examples: central differences of whole runs in float64."""
    found: list[float] = []
    for place in places:
        ends: list[float] = []
        for shift in (1e-3, -1e-3):
            model, tokens, _, query = problem(steps, width, torch.float64)
            weights = torch.ones(len(tokens), dtype=torch.float64)
            weights[place] += shift
            optimizer = adamw(model)
            for k in range(steps):
                part = slice(k * BATCH, (k + 1) * BATCH)
                optimizer.zero_grad()
                (weights[part] * losses(model, tokens[part])).mean().backward()
                optimizer.step()
            ends.append(float(losses(model, query).mean().detach()))
        found.append((ends[0] - ends[1]) / 2e-3)
    return torch.tensor(found, dtype=torch.float64)


def report(steps: int, width: int) -> str:
    rows = {name: apart(name, steps, width, "float64") for name in CONTESTANTS}
    fast = {name: apart(name, steps, width, "float32") for name in ("plain", *CONTESTANTS)}
    _, tokens, alike, _ = problem(steps, width, torch.float64)
    places = [0, 1, len(tokens) // 2, len(tokens) - 1]
    truth = differences(steps, width, places)
    reference = torch.tensor(rows["unrolled"]["grad"], dtype=torch.float64)
    lines = [
        "| | against differences of whole runs | against `Unrolled` | rank correlation | AUC of the right half | "
        "s, fp32 | × training alone | peak MB, fp32 |",
        "|---|---|---|---|---|---|---|---|",
    ]
    for name in CONTESTANTS:
        if "error" in rows[name]:
            lines.append(f"| {name} | {rows[name]['error']} | | | | | | |")
            continue
        grad = torch.tensor(rows[name]["grad"], dtype=torch.float64)
        cells = [
            f"{float((grad[places] - truth).norm() / truth.norm()):.1e}",
            f"{float((grad - reference).norm() / reference.norm()):.1e}",
            f"{rank_correlation(grad, reference):.3f}",
            f"{area(grad, alike):.3f}",
        ]
        quick = fast[name]
        if "error" in quick:
            cells += [quick["error"], "", ""]
        else:
            times = quick["seconds"] / fast["plain"]["seconds"]
            cells += [f"{quick['seconds']:.2f}", f"{times:.1f}", f"{quick['peak_mb']:.0f}"]
        lines.append(f"| {name} | {' | '.join(cells)} |")
    num = sum(p.numel() for p in model_of(width, torch.float32).parameters())
    lines.append("")
    lines.append(
        f"{num:,} parameters, {steps} updates of {BATCH} sequences; training alone {fast['plain']['seconds']:.2f} s."
    )
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--steps", type=int, default=12)
    parser.add_argument("--width", type=int, default=64)
    parser.add_argument("--dtype", default="float64", choices=("float32", "float64"))
    parser.add_argument("--one", choices=("plain", *CONTESTANTS))
    parser.add_argument("--report", type=Path)
    given = parser.parse_args()
    if given.one:
        print(json.dumps(measure(given.one, given.steps, given.width, getattr(torch, given.dtype))))
        return
    text = report(given.steps, given.width)
    print(text)
    if given.report:
        given.report.write_text(text + "\n")


if __name__ == "__main__":
    main()
