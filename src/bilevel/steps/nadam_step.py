"""NAdam: Adam with Nesterov's momentum: θ' = θ - lr (A g + B m) / (s + ε), s = sqrt(v/c2), c2 = 1 - β2^t,

    μ_t = β1 (1 - ½ 0.96^(t ψ)),  P_t = Π μ,  A = (1 - μ_t) / (1 - P_t),  B = μ_{t+1} / (1 - P_t μ_{t+1}).

Source: Dozat, 2016, as torch.optim.NAdam computes it.
"""

from __future__ import annotations

from torch import Tensor

from .update import Update, is_zero, without_spikes

__all__ = ["factor"]


def factor(update: Update) -> Tensor:
    """D = lr [ (A + B (1-β1)) / a - (A g + B m) (1-β2) g / (c2 s a²) ], a = s + ε, the second term 0 where s = 0."""
    group, g, m, v, t = update.group, update.g, update.moment("exp_avg"), update.moment("exp_avg_sq"), update.t
    (beta1, beta2), lr = group["betas"], group["lr"]
    product = update.state["mu_product"]
    product = product.to(g.device, update.wide) if product.is_cuda else product.item()
    now, following = (beta1 * (1.0 - 0.5 * 0.96 ** (k * group["momentum_decay"])) for k in (t, t + 1))
    by_gradient, by_moment = (1.0 - now) / (1.0 - product), following / (1.0 - product * following)
    c2 = 1.0 - beta2**t
    s = (v / c2).sqrt_()
    a = s + group["eps"]
    first = (by_gradient + by_moment * (1.0 - beta1)) / a
    if update.frozen:
        return update.sign * lr * first
    decay = update.l2
    if not is_zero(decay):  # g_eff = g + wd θ and θ = θ' + lr (A g_eff + B m) / a, solved for g_eff
        g = (g + decay * (update.theta + lr * by_moment * m / a)) / (1.0 - decay * lr * by_gradient / a)
    second = (by_gradient * g + by_moment * m) * (1.0 - beta2) * g / (c2 * s * a * a)
    return without_spikes(update.sign * lr * (first - second.masked_fill_(s == 0, 0.0)), update, v)
