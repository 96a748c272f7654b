"""What surrounds the product: low precision, quantized bases and optimizers, scalers, checkpointing, memory, errors."""

from __future__ import annotations

import gc
import resource
from typing import Any

import bitsandbytes as bnb
import pytest
import torch
from peft import LoraConfig, inject_adapter_in_model
from torch import Tensor, nn
from torch.nn import functional as F
from torch.utils.checkpoint import checkpoint

import bilevel
from bilevel import Lookahead, Status

NUM_EXAMPLES, WIDTH = 6, 16


class Net(nn.Module):
    """Two layers and a norm, checkpointed or not."""

    def __init__(self, reentrant: bool | None = None) -> None:
        super().__init__()
        self.first, self.second = nn.Linear(WIDTH, 64), nn.Linear(64, WIDTH)
        self.norm, self.head = nn.LayerNorm(WIDTH), nn.Linear(WIDTH, 3)
        self.reentrant = reentrant

    def block(self, x: Tensor) -> Tensor:
        return x + self.second(F.gelu(self.first(x)))

    def forward(self, x: Tensor) -> Tensor:
        x = self.block(x) if self.reentrant is None else checkpoint(self.block, x, use_reentrant=self.reentrant)
        return self.head(self.norm(x))


class Loop:
    """A loop like a user's: one raw weight per example, four updates, the hypergradient of the last."""

    def __init__(
        self, model: nn.Module, optimizer: Any, updates: int = 4, autocast: bool = False, **options: Any
    ) -> None:
        self.model, self.optimizer, self.updates, self.autocast = model, optimizer, updates, autocast
        self.raw = torch.linspace(-1.0, 1.0, NUM_EXAMPLES).requires_grad_()
        self.lookahead = Lookahead(model, optimizer, **options)
        generator = torch.Generator().manual_seed(5)
        self.x = torch.randn(NUM_EXAMPLES, WIDTH, generator=generator).requires_grad_()
        self.label = torch.randint(0, 3, (NUM_EXAMPLES,), generator=generator)

    def losses(self, shift: int = 0) -> Tensor:
        with torch.autocast("cpu", torch.bfloat16, enabled=self.autocast):
            logits = self.model(self.x)
        return F.cross_entropy(logits.float(), (self.label + shift) % 3, reduction="none")

    def update(self, record: bool = True) -> Status | None:
        self.optimizer.zero_grad()
        with self.lookahead.inner(record=record):
            self.lookahead.backward(self.losses(), F.softplus(self.raw) / NUM_EXAMPLES)
        self.lookahead.step()
        return self.lookahead.backward_outer(self.losses(1).mean()) if record else None

    def run(self) -> Tensor:
        for number in range(self.updates):
            self.raw.grad = None
            self.update(record=number == self.updates - 1)
        assert self.raw.grad is not None
        return self.raw.grad


def net(**options: Any) -> Net:
    torch.manual_seed(0)
    return Net(**options)


def relative(a: Tensor, b: Tensor) -> float:
    return float((a - b).norm() / b.norm())


def test_accumulated_outer_batches_are_averaged() -> None:
    whole = Loop(model := net(), torch.optim.AdamW(model.parameters(), lr=1e-2))
    expected = whole.run()
    parts = Loop(model := net(), torch.optim.AdamW(model.parameters(), lr=1e-2))
    for _ in range(3):
        parts.update(record=False)
    parts.optimizer.zero_grad()
    with parts.lookahead.inner():
        parts.lookahead.backward(parts.losses(), F.softplus(parts.raw) / NUM_EXAMPLES)
    parts.lookahead.step()
    losses = parts.losses(1)
    parts.lookahead.accumulate_outer(losses[:3].mean())
    parts.lookahead.backward_outer(parts.losses(1)[3:].mean())
    assert relative(parts.raw.grad, expected) < 1e-5  # fp32 sums in another order


@pytest.mark.parametrize("reentrant", [False, True])
def test_gradient_checkpointing(reentrant: bool) -> None:
    expected = Loop(model := net(), torch.optim.AdamW(model.parameters(), lr=1e-2)).run()
    model = net(reentrant=reentrant)
    loop = Loop(model, torch.optim.AdamW(model.parameters(), lr=1e-2))
    if reentrant:  # torch.autograd.grad does not see through it, and the outer gradient would be silently incomplete
        with pytest.raises(RuntimeError, match="use_reentrant=False"):
            loop.run()
    else:
        assert relative(loop.run(), expected) < 1e-5


def test_autocast_with_fp32_master_weights() -> None:
    expected = Loop(model := net(), torch.optim.AdamW(model.parameters(), lr=1e-3)).run()
    for product in ("ghost", "jvp", "unroll"):
        model = net()
        loop = Loop(model, torch.optim.AdamW(model.parameters(), lr=1e-3), autocast=True, product=product)
        value = loop.run()
        assert loop.lookahead.report["check"] < 0.05
        assert float(torch.cosine_similarity(value, expected, 0)) > 0.99  # of two trajectories, bf16 and fp32


def test_grad_scaler_changes_nothing_and_a_skipped_step_is_a_status() -> None:
    expected = Loop(model := net(), torch.optim.AdamW(model.parameters(), lr=1e-2), clip_norm=0.1).run()
    scaler = torch.amp.GradScaler("cpu", init_scale=1024.0)
    loop = Loop(model := net(), torch.optim.AdamW(model.parameters(), lr=1e-2), clip_norm=0.1, scaler=scaler)
    assert relative(loop.run(), expected) < 1e-5
    loop.raw.grad = None
    with torch.no_grad():
        loop.x[0, 0] = float("inf")
    assert loop.update() is Status.NOT_FINITE
    assert loop.raw.grad is None
    assert all(bool(p.isfinite().all()) for p in model.parameters())


def test_not_finite_outer_gradient_is_a_status() -> None:
    loop = Loop(model := net(), torch.optim.AdamW(model.parameters(), lr=1e-2))
    loop.optimizer.zero_grad()
    with loop.lookahead.inner():
        loop.lookahead.backward(loop.losses(), F.softplus(loop.raw))
    loop.lookahead.step()
    assert loop.lookahead.backward_outer(loop.losses().mean() * float("nan")) is Status.NOT_FINITE
    assert loop.raw.grad is None
    assert loop.update() is Status.DONE


@pytest.mark.parametrize("product", ["ghost", "jvp"])
def test_an_example_with_weight_zero_has_its_hypergradient(product: Any) -> None:
    def run(first: float, product: Any) -> Tensor:
        model = net().double()
        optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
        weights = torch.tensor([first, 0.5, 1.0, -0.5], dtype=torch.float64).requires_grad_()
        x = torch.randn(4, WIDTH, dtype=torch.float64, generator=torch.Generator().manual_seed(1))
        label = torch.tensor([0, 1, 2, 0])
        lookahead = Lookahead(model, optimizer, product)
        with lookahead.inner():
            lookahead.backward(F.cross_entropy(model(x), label, reduction="none"), weights)
        lookahead.step()
        lookahead.backward_outer(F.cross_entropy(model(x), label.flip(0)))
        return weights.grad  # pyright: ignore[reportReturnType]

    zero = run(0.0, product)
    assert relative(zero, run(0.0, "unroll")) < 1e-10
    assert abs(float(zero[0])) > 1e-4


def test_lora_on_a_frozen_4_bit_base() -> None:
    torch.manual_seed(0)
    plain = nn.Sequential(nn.Linear(WIDTH, 64), nn.GELU(), nn.Linear(64, 64), nn.GELU(), nn.Linear(64, 3))
    quantized = nn.Sequential(*plain)
    bases = {}
    for place in (0, 2):
        layer = bnb.nn.Linear4bit(plain[place].in_features, plain[place].out_features, compute_dtype=torch.float32)
        layer.load_state_dict(plain[place].state_dict())
        quantized[place] = layer.to("cpu")
        bases[place] = bnb.functional.dequantize_4bit(layer.weight.data, layer.weight.quant_state).float()

    def adapted(model: nn.Module) -> nn.Module:
        config = LoraConfig(r=4, lora_alpha=8, target_modules=["0", "2"], modules_to_save=None)
        for parameter in model.parameters():
            parameter.requires_grad_(False)
        torch.manual_seed(3)
        model = inject_adapter_in_model(config, model)
        for name, parameter in model.named_parameters():
            if "lora" in name:
                parameter.data.normal_(0, 0.2)
        return model

    dequantized = nn.Sequential(nn.Linear(WIDTH, 64), nn.GELU(), nn.Linear(64, 64), nn.GELU(), nn.Linear(64, 3))
    dequantized.load_state_dict(plain.state_dict())
    for place, weight in bases.items():
        dequantized[place].weight.data.copy_(weight)
    results = []
    for model, product in ((adapted(quantized), "ghost"), (adapted(dequantized), "jvp")):
        optimizer = torch.optim.AdamW([p for p in model.parameters() if p.requires_grad], lr=1e-2)
        loop = Loop(model, optimizer, product=product)
        results.append(loop.run())
        if product == "ghost":
            with pytest.raises(ValueError, match="drop the tangent"):
                Lookahead(model, optimizer, "jvp")
    # 4-bit kernels and dense ones multiply in another order
    assert relative(*results) < 1e-4


@pytest.mark.parametrize("kind", ["AdamW8bit", "Adam8bit", "AdamW", "Adam"])
def test_bitsandbytes_against_the_formula_and_against_its_own_step(kind: str) -> None:
    torch.manual_seed(0)
    parameter = nn.Parameter(torch.randn(64, 128))
    optimizer = getattr(bnb.optim, kind)([parameter], lr=1e-2, weight_decay=0.1)
    for _ in range(5):
        parameter.grad = torch.randn_like(parameter)
        optimizer.step()
    state = optimizer.state[parameter]
    v = torch.randn_like(parameter)
    (u,) = bilevel.step_vjp(optimizer, [v])
    if "8bit" in kind:
        m, s = (
            bnb.functional.dequantize_blockwise(
                state[f"state{k}"], absmax=state[f"absmax{k}"], code=state[f"qmap{k}"], blocksize=256
            )
            for k in (1, 2)
        )
    else:
        m, s = state["state1"], state["state2"]
    g = parameter.grad
    s = torch.maximum(s, 0.001 * g * g)  # true of the moment that the step used; see the rule
    c1, c2 = 1 - 0.9**5, 1 - 0.999**5
    root = (s / c2).sqrt()
    d = 1e-2 / c1 * (0.1 / (root + 1e-8) - m * 0.001 * g / (c2 * root * (root + 1e-8) ** 2))
    assert relative(u, d * v) < 1e-5  # fp32
    if "8bit" not in kind:  # and the formula is the derivative of the step that the library takes
        before, moments = parameter.detach().clone(), {k: t.clone() for k, t in state.items() if torch.is_tensor(t)}
        ends = []
        for sign in (1, -1):
            parameter.data.copy_(before)
            for k, t in moments.items():
                state[k].copy_(t)
            state["step"] = 5
            parameter.grad = g + sign * 1e-2 * g.sign()
            optimizer.step()
            ends.append(parameter.detach().clone())
        parameter.data.copy_(before)
        for k, t in moments.items():
            state[k].copy_(t)
        state["step"] = 5
        parameter.grad = g.clone()
        optimizer.step()
        (unit,) = bilevel.step_vjp(optimizer, [torch.ones_like(g)])
        numeric = -(ends[0] - ends[1]) / (2e-2 * g.sign())
        # central difference of step 1e-2 in fp32; near g = 0 the step's second derivative is large
        assert float(torch.cosine_similarity(unit.flatten(), numeric.flatten(), 0)) > 0.999


def test_adamw_8bit_in_the_loop() -> None:
    results = {}
    for product in ("ghost", "jvp"):
        model = net()
        optimizer = bnb.optim.AdamW8bit(model.parameters(), lr=1e-2, min_8bit_size=512)
        results[product] = Loop(model, optimizer, product=product).run()
        assert optimizer.state[model.first.weight]["state1"].dtype == torch.uint8
    assert relative(results["ghost"], results["jvp"]) < 1e-4
    model = net()
    exact = Loop(model, torch.optim.AdamW(model.parameters(), lr=1e-2)).run()
    assert float(torch.cosine_similarity(results["ghost"], exact, 0)) > 0.9  # 8-bit moments: another trajectory


def test_frozen_and_unused_parameters() -> None:
    model = net()
    model.first.requires_grad_(False)
    model.unused = nn.Linear(2, 2)
    value = Loop(model, torch.optim.AdamW(model.parameters(), lr=1e-2)).run()
    alone = net()
    alone.first.requires_grad_(False)
    trained = [p for p in alone.parameters() if p.requires_grad]
    expected = Loop(alone, torch.optim.AdamW(trained, lr=1e-2), product="unroll").run()
    assert relative(value, expected) < 1e-5


def test_schedule_between_step_and_outer_pass() -> None:
    """The learning rate of the step counts, not the one a schedule has set since."""
    results = []
    for moved in (False, True):
        model = net()
        loop = Loop(model, torch.optim.AdamW(model.parameters(), lr=1e-2))
        loop.update(record=False)
        loop.optimizer.zero_grad()
        with loop.lookahead.inner():
            loop.lookahead.backward(loop.losses(), F.softplus(loop.raw))
        loop.lookahead.step()
        if moved:
            loop.optimizer.param_groups[0]["lr"] = 123.0
        loop.lookahead.backward_outer(loop.losses(1).mean())
        results.append(loop.raw.grad)
    assert torch.equal(*results)


def test_two_hundred_updates_leave_nothing_behind() -> None:
    model = net()
    loop = Loop(model, torch.optim.AdamW(model.parameters(), lr=1e-3), clip_norm=1.0)

    def count() -> int:
        gc.collect()
        return sum(1 for o in gc.get_objects() if issubclass(type(o), torch.Tensor))

    for _ in range(5):
        loop.update()
    before, peak = count(), resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    for _ in range(200):
        loop.update()
    assert count() == before
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - peak < 20_000  # kB; the allocator's own grain


class Custom(nn.Module):
    """A parameter in a function without a rule."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.randn(WIDTH, 3))

    def forward(self, x: Tensor) -> Tensor:
        return torch.linalg.multi_dot([x, self.weight])


def test_uncovered_parameter_is_named_and_a_rule_covers_it() -> None:
    model = nn.Sequential(Custom())
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9)
    with pytest.raises(bilevel.NoRuleError, match=r"0\.weight.*multi_dot.*register_rule"):
        Loop(model, optimizer).run()
    expected = Loop(model, torch.optim.SGD(model.parameters(), lr=0.1), product="jvp", updates=1).run()

    def multi_dot(tape: bilevel.lookahead.Tape, args: Any, kwargs: Any) -> Tensor:
        x, weight = args[0]
        output = torch.linalg.multi_dot([x, bilevel.lookahead.plain(weight)])
        kept = x.detach()

        def note(delta: Tensor) -> bilevel.lookahead.Entry:
            return bilevel.lookahead.Entry(
                weight.parameters, lambda u: torch.einsum("bo,bi,io->b", delta, kept, u(weight))
            )

        tape.watch(output, note)
        return output

    bilevel.register_rule(torch.linalg.multi_dot, multi_dot)
    try:
        torch.manual_seed(0)
        fresh = nn.Sequential(Custom())
        value = Loop(fresh, torch.optim.SGD(fresh.parameters(), lr=0.1), updates=1).run()
        torch.manual_seed(0)
        fresh = nn.Sequential(Custom())
        expected = Loop(fresh, torch.optim.SGD(fresh.parameters(), lr=0.1), product="jvp", updates=1).run()
        assert relative(value, expected) < 1e-5
    finally:
        del bilevel.lookahead.Tracked.rules[torch.linalg.multi_dot]


class Straight(torch.autograd.Function):
    """A custom function that takes the parameter past every rule."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor) -> Tensor:
        ctx.save_for_backward(x, weight)
        return x @ weight

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> Any:
        x, weight = ctx.saved_tensors
        return grads[0] @ weight.T, x.T @ grads[0]


class Hidden(Custom):
    def forward(self, x: Tensor) -> Tensor:
        return Straight.apply(x, self.weight)


def test_a_use_that_no_rule_sees_is_found() -> None:
    model = nn.Sequential(nn.Linear(WIDTH, WIDTH), Hidden())
    with pytest.raises((bilevel.NoRuleError, RuntimeError), match=r"1\.weight|weight"):
        Loop(model, torch.optim.SGD(model.parameters(), lr=0.1)).run()
    with pytest.raises((bilevel.ZeroTangentError, RuntimeError), match=r"forward mode|jvp"):
        Loop(model, torch.optim.SGD(model.parameters(), lr=0.1), product="jvp").run()


class Lion(torch.optim.SGD):
    pass


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda m: Lookahead(m, Lion(m.parameters(), lr=1e-3)), "sign method"),
        (lambda m: Lookahead(m, torch.optim.SparseAdam(m.parameters())), "no derivative rule.*register_step"),
        (lambda m: Lookahead(m, torch.optim.SGD(m.parameters(), lr=1), product="gost"), "ghost, jvp"),
        (lambda m: Lookahead(m, torch.optim.SGD(m.parameters(), lr=1), clip_norm=1.0, clip_value=1.0), "not both"),
        (lambda m: Lookahead(m, torch.optim.SGD(m.parameters(), lr=1), clip_norm=-1.0), "positive"),
        (lambda m: Lookahead(m, torch.optim.SGD([nn.Parameter(torch.ones(1))], lr=1)), "not in the model"),
        (lambda m: Lookahead(m.bfloat16(), torch.optim.SGD(m.parameters(), lr=1), product="fd"), "rounding noise"),
        (lambda m: Lookahead(torch.compile(m), torch.optim.SGD(m.parameters(), lr=1)), "compiled"),
    ],
)
def test_what_is_not_supported_says_so(make: Any, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        make(net())


def test_batch_norm_mixes_examples() -> None:
    model = nn.Sequential(nn.Linear(WIDTH, 8), nn.BatchNorm1d(8), nn.Linear(8, 3))
    with pytest.raises(bilevel.NoRuleError, match="mixes the examples"):
        Loop(model, torch.optim.SGD(model.parameters(), lr=0.1)).run()
    model.eval()
    loop = Loop(model, torch.optim.SGD(model.parameters(), lr=0.1))
    loop.run()
    assert loop.lookahead.report["check"] < 1e-4


def test_rows_that_are_not_examples_need_a_map() -> None:
    class Packed(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.layer, self.head = nn.Linear(WIDTH, WIDTH), nn.Linear(WIDTH, 3)

        def forward(self, x: Tensor) -> Tensor:
            rows = torch.tanh(self.layer(x.repeat_interleave(2, 0)))
            return self.head(rows.view(NUM_EXAMPLES, 2, WIDTH).sum(1))

    torch.manual_seed(0)
    model = Packed()
    loop = Loop(model, torch.optim.SGD(model.parameters(), lr=0.1), updates=1)
    with pytest.raises(bilevel.RowsError, match=r"layer\.weight.*\(12,\) for 6 examples.*rows="):
        loop.run()
    loop = Loop(model, torch.optim.SGD(model.parameters(), lr=0.1), updates=1)
    with pytest.raises(bilevel.HypergradientCheckError, match=r"layer\.weight"):
        _mapped(loop, torch.arange(12) % NUM_EXAMPLES)  # a wrong map is found by the check
    loop = Loop(model, torch.optim.SGD(model.parameters(), lr=0.1), updates=1)
    _mapped(loop, torch.arange(NUM_EXAMPLES).repeat_interleave(2))
    assert loop.lookahead.report["check"] < 1e-4


def _mapped(loop: Loop, index: Tensor) -> None:
    loop.optimizer.zero_grad()
    with loop.lookahead.inner(rows={"layer": index}):
        loop.lookahead.backward(loop.losses(), F.softplus(loop.raw))
    loop.lookahead.step()
    loop.lookahead.backward_outer(loop.losses(1).mean())


def test_usage_errors() -> None:
    loop = Loop(model := net(), torch.optim.SGD(model.parameters(), lr=0.1))
    with pytest.raises(RuntimeError, match="nothing recorded"):
        loop.lookahead.backward_outer(loop.losses().mean())
    with pytest.raises(RuntimeError, match=r"without lookahead\.backward"), loop.lookahead.inner():
        loop.losses()
    with pytest.raises(ValueError, match="one number per example"), loop.lookahead.inner():
        loop.lookahead.backward(loop.losses().mean(), loop.raw)
    with loop.lookahead.inner():
        loop.lookahead.backward(loop.losses(), torch.ones(NUM_EXAMPLES))
    loop.lookahead.step()
    with pytest.raises(ValueError, match="weigher's output detached"):
        loop.lookahead.backward_outer(loop.losses(1).mean())
    assert not any("weight" in m.__dict__ for m in model.modules())  # no stand-in survives an error


def test_dampening_needs_to_know_the_first_step() -> None:
    parameter = nn.Parameter(torch.ones(2))
    optimizer = torch.optim.SGD([parameter], lr=0.1, momentum=0.9, dampening=0.5)
    parameter.grad = torch.ones(2)
    optimizer.step()
    with pytest.raises(ValueError, match="first_step"):
        bilevel.step_vjp(optimizer, [torch.ones(2)])
    (first,) = bilevel.step_vjp(optimizer, [torch.ones(2)], first_step=True)
    later = bilevel.step_vjp(optimizer, {parameter: torch.ones(2)}, first_step=False)[parameter]
    assert torch.allclose(first, torch.full((2,), 0.1))
    assert torch.allclose(later, torch.full((2,), 0.05))
    with pytest.raises(ValueError, match="2 cotangents for 1"):
        bilevel.step_vjp(optimizer, [torch.ones(2), torch.ones(2)])


def test_adam_first_step_is_finite_where_a_gradient_is_zero() -> None:
    parameter = nn.Parameter(torch.ones(3))
    optimizer = torch.optim.Adam([parameter], lr=0.1)
    parameter.grad = torch.tensor([0.0, 1.0, -2.0])
    optimizer.step()
    (u,) = bilevel.step_vjp(optimizer, [torch.ones(3)])
    assert u.isfinite().all()
    assert float(u[1:].abs().max()) < 1e-6  # Adam's first step is a sign: its derivative is eps / (|g| + eps)^2


# The name that transformers 5.10 has too.
@pytest.mark.filterwarnings("ignore:.gradient_checkpointing_enable:FutureWarning")
@pytest.mark.parametrize("product", ["ghost", "unroll"])
def test_checkpointed_transformers_are_seen_as_the_first_time(product: str) -> None:
    """Norms and attention are computed anew inside the backward pass, where a torch function mode could be off."""
    transformers = pytest.importorskip("transformers")
    found = []
    for checkpointed in (False, True):
        torch.manual_seed(0)
        config = transformers.Qwen2Config(
            vocab_size=16, hidden_size=16, intermediate_size=32, num_hidden_layers=2, num_attention_heads=2,
            num_key_value_heads=2, max_position_embeddings=8, use_cache=False, pad_token_id=None, bos_token_id=None,
            eos_token_id=None,
        )  # fmt: skip
        model = transformers.Qwen2ForCausalLM(config).train()
        if checkpointed:
            model.gradient_checkpointing_enable({"use_reentrant": False})
        tokens = torch.randint(0, 16, (4, 8))
        weights = torch.ones(4, requires_grad=True)
        optimizer = torch.optim.AdamW(model.parameters(), lr=1e-3, eps=1e-4)
        lookahead = Lookahead(model, optimizer, product=product)
        for _ in range(2):
            optimizer.zero_grad()
            with lookahead.inner():
                losses = F.cross_entropy(model(tokens).logits[:, -1], tokens[:, 0], reduction="none")
                lookahead.backward(losses, weights / 4)
            lookahead.step()
            lookahead.backward_outer(F.cross_entropy(model(tokens).logits[:, 0], tokens[:, 1]))
        assert weights.grad is not None
        found.append(weights.grad)
    assert relative(found[1], found[0]) < 1e-5  # the same operations in fp32
