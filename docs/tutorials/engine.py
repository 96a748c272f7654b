# %% [markdown]
# # The engine in ten minutes
#
# For those who know bilevel problems and want to see what `bilevel` computes and whether it is right. Nothing but torch
# is needed (and matplotlib for the pictures); every line below ran when this page was made.
#
# The problem: 40 % of the training labels are wrong, nobody knows which, and a few held-out examples are right. One
# weight per training example is the outer variable:
#
# ```text
# g  = Σ_i (w_i / B) ∇ℓ_i(θ)
# θ' = AdamW(θ, clip(g))
# wanted: dF(θ')/dw, F the loss on the held-out examples
# ```
#
# ## One update, by the engine

# %%
import matplotlib.pyplot as plt
import torch
import torch.nn.functional as F

import bilevel

torch.manual_seed(0)
torch.set_default_dtype(torch.float64)  # so that "exact" can be seen

teacher = torch.randn(10)
x, x_meta, x_test = torch.randn(200, 10), torch.randn(50, 10), torch.randn(2000, 10)
wrong = torch.rand(200) < 0.4
y = ((x @ teacher > 0) ^ wrong).double()
y_meta, y_test = (x_meta @ teacher > 0).double(), (x_test @ teacher > 0).double()


def make_model():
    torch.manual_seed(1)
    return torch.nn.Sequential(torch.nn.Linear(10, 32), torch.nn.Tanh(), torch.nn.Linear(32, 1))


def losses_of(model, x, y):
    return F.binary_cross_entropy_with_logits(model(x).squeeze(1), y, reduction="none")


def make_optimizer(model):
    return torch.optim.AdamW(model.parameters(), lr=3e-2, eps=1e-3)


model = make_model()
optimizer = make_optimizer(model)  # torch's own, which the engine reads and never rebuilds
weights = torch.ones(200, requires_grad=True)

lookahead = bilevel.Lookahead(model, optimizer, clip_norm=1.0)
optimizer.zero_grad()
with lookahead.inner():
    losses = losses_of(model, x, y)  # one per example
    lookahead.backward(losses, weights / len(losses))
lookahead.step()  # clips, then optimizer.step()
lookahead.backward_outer(losses_of(model, x_meta, y_meta).mean())
print("dF/dw of the first five examples:", weights.grad[:5])
print("the sum rule's residual:", lookahead.report["sum_rule"])

# %% [markdown]
# The sum rule is a check that costs next to nothing and is made at every update: the products `w_i dF/dw_i` must add up
# to a number that is known from elsewhere. A layer that the engine did not see would break it, and the engine stops.
#
# ## The same, by autograd
#
# A second path that shares no code with the first: AdamW's first step written out, and differentiated as it stands.

# %%
start = make_model()
free = torch.ones(200, requires_grad=True)
names, params = zip(*start.named_parameters(), strict=True)
weighted = (free * losses_of(start, x, y)).mean()
grads = torch.autograd.grad(weighted, params, create_graph=True)
norm = torch.sqrt(sum((g**2).sum() for g in grads))
clip = (1.0 / (norm + 1e-6)).clamp(max=1.0)


def adamw_first_step(p, g, lr=3e-2, betas=(0.9, 0.999), eps=1e-3, decay=1e-2):
    m, v = (1 - betas[0]) * g, (1 - betas[1]) * g**2
    m, v = m / (1 - betas[0]), v / (1 - betas[1])
    return p * (1 - lr * decay) - lr * m / (v.sqrt() + eps)


moved = {name: adamw_first_step(p.detach(), g * clip) for name, p, g in zip(names, params, grads, strict=True)}
outputs = torch.func.functional_call(start, moved, (x_meta,)).squeeze(1)
(by_autograd,) = torch.autograd.grad(F.binary_cross_entropy_with_logits(outputs, y_meta), free)

error = (weights.grad - by_autograd).norm() / by_autograd.norm()
print(f"relative error against autograd: {error:.1e}")
assert error < 1e-9

# %% [markdown]
# ## The same, by functions
#
# `bilevel.hypergradient` takes pure functions of trees of parameters, and a *method*: one problem, many ways to its
# gradient. One exact step agrees once more; a finite difference, the way of DARTS and of betty, is near and not the
# same, and what is near in float64 is less so in float32.


# %%
def inner(params, hyper, batch):
    losses = losses_of(lambda x: torch.func.functional_call(start, params, (x,)), *batch)
    return (hyper["weights"] * losses).mean()


def outer(params, hyper, batch):
    return losses_of(lambda x: torch.func.functional_call(start, params, (x,)), *batch).mean()


problem = bilevel.Bilevel(inner, outer)
adamw = bilevel.AdamW(lr=3e-2, eps=1e-3)


def relative_error(method, dtype=torch.float64):
    params = {name: p.detach().to(dtype) for name, p in start.named_parameters()}
    hyper = {"weights": torch.ones(200, dtype=dtype)}
    batches = [(x.to(dtype), y.to(dtype)), (x_meta.to(dtype), y_meta.to(dtype))]
    found = bilevel.hypergradient(problem, params, hyper, batches[:1], batches[1], method=method).grad["weights"]
    return ((found - by_autograd).norm() / by_autograd.norm()).item()


for name, method, dtype in (
    ("one step, exact          float64", bilevel.OneStep(adamw, clip_norm=1.0), torch.float64),
    ("one step, exact          float32", bilevel.OneStep(adamw, clip_norm=1.0), torch.float32),
    ("finite difference        float64", bilevel.FiniteDifference(adamw), torch.float64),
    ("finite difference        float32", bilevel.FiniteDifference(adamw), torch.float32),
):
    print(f"{name}   relative error {relative_error(method, dtype):.1e}")

# %% [markdown]
# ## A run
#
# In a loop the weights get an optimizer of their own; twice a sigmoid keeps them between 0 and 2.


# %%
def run(learn):
    model, raw = make_model(), torch.zeros(200, requires_grad=True)
    optimizer, outer_optimizer = make_optimizer(model), torch.optim.Adam([raw], lr=0.1)
    lookahead = bilevel.Lookahead(model, optimizer, clip_norm=1.0)
    for _ in range(150):
        optimizer.zero_grad()
        with lookahead.inner():
            losses = losses_of(model, x, y)
            lookahead.backward(losses, 2 * torch.sigmoid(raw) / len(losses))
        lookahead.step()
        outer_optimizer.zero_grad()
        lookahead.backward_outer(losses_of(model, x_meta, y_meta).mean())
        if learn:
            outer_optimizer.step()
    accuracy = ((model(x_test).squeeze(1) > 0) == y_test.bool()).double().mean()
    return accuracy.item(), 2 * torch.sigmoid(raw.detach())


uniform, _ = run(learn=False)
learned, found = run(learn=True)
print(f"accuracy on 2,000 test examples: {uniform:.3f} with equal weights, {learned:.3f} with learned ones")

# %% alt="Two histograms of the learned weights: those of right labels are near 2, those of wrong labels near 0."
figure, axes = plt.subplots(figsize=(6, 2.6))
axes.hist([found[~wrong], found[wrong]], bins=20, range=(0, 2), label=["right labels", "wrong labels"])
axes.set(xlabel="weight after 150 updates", ylabel="examples")
axes.legend()
plt.show()

# %% [markdown]
# ## Implicit or unrolled
#
# Where the inner problem is solved to its end, two exact answers exist to two questions. *Unrolled* differentiates what
# K steps did, from where they began. *Implicit* differentiates the minimiser itself, whatever led there, and needs to
# be at it. On ridge regression the minimiser's derivative is known in closed form:

# %%
a, b, a_meta, b_meta = torch.randn(40, 5), torch.randn(40), torch.randn(20, 5), torch.randn(20)


def ridge(params, hyper, batch):
    return ((batch[0] @ params["w"] - batch[1]) ** 2).mean() + hyper["log_decay"].exp() * (params["w"] ** 2).sum()


def validation(params, hyper, batch):
    return ((batch[0] @ params["w"] - batch[1]) ** 2).mean()


log_decay = torch.tensor(-1.0, requires_grad=True)
solution = torch.linalg.solve(a.T @ a / 40 + log_decay.exp() * torch.eye(5), a.T @ b / 40)
(closed_form,) = torch.autograd.grad(((a_meta @ solution - b_meta) ** 2).mean(), log_decay)

task, hyper = bilevel.Bilevel(ridge, validation), {"log_decay": log_decay.detach()}
counts, unrolled, implicit = [1, 2, 4, 8, 16, 32, 64, 128], [], []
sgd = bilevel.SGD(lr=0.05)
for count in counts:
    zero = {"w": torch.zeros(5)}
    steps = bilevel.hypergradient(task, zero, hyper, [(a, b)] * count, (a_meta, b_meta), method=bilevel.Unrolled(sgd))
    there = bilevel.hypergradient(
        task, steps.params, hyper, [(a, b)], (a_meta, b_meta), method=bilevel.Implicit(bilevel.CG(50, 1e-12))
    )
    unrolled.append(abs(steps.grad["log_decay"] / closed_form - 1).item())
    implicit.append(abs(there.grad["log_decay"] / closed_form - 1).item())

# %% alt="Relative error against the closed form by number of inner steps: both fall; implicit is ahead of unrolled."
figure, axes = plt.subplots(figsize=(6, 2.8))
axes.loglog(counts, unrolled, "o-", label="unrolled through K steps")
axes.loglog(counts, implicit, "s-", label="implicit, at the K-th step's parameters")
axes.set(xlabel="K, inner steps", ylabel="relative error")
axes.legend()
plt.show()

# %%
print(f"after {counts[-1]} steps: unrolled {unrolled[-1]:.1e}, implicit {implicit[-1]:.1e}")
assert max(unrolled[-1], implicit[-1]) < 1e-3

# %% [markdown]
# Both go to the same number; neither is wrong before, they answer what was asked. Nothing can tell `Implicit` that it
# is not at the minimiser: train first. Which method when, their passes and their memory stand in
# [the table of methods](../../src/bilevel/README.md#methods); what an update costs beside other libraries in
# [the benchmarks](../../benchmarks/README.md). Next: [reweight your own fine-tuning](reweight.py).
