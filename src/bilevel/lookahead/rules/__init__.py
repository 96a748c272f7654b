"""The ghost rules, one kind of layer per file: what to keep of a use, and how it answers <u, ∇ℓ_i>.

    linear         F.linear, matmul, addmm        Σ_t <δ_it, U x_it + u_b>      keeps x and δ
    product        einsum, bilinear, tensordot    Σ <δ_i, f(x_i, U)>            keeps x and δ
    embedding      F.embedding, parameter[ids]    Σ_t <δ_it, U[token_it]>       keeps δ
    embedding_bag  F.embedding_bag, sum and mean  <δ_i, bag(U)_i>               keeps δ
    convolution    conv1d … 3d, transposed too    Σ <δ_i, conv(x_i, U) + u_b>   keeps x and δ
    norm           layer, RMS, group, instance,   <Σ_t δ_it x̂_it, u>            keeps (B, C)
                   batch (eval)
    prelu          F.prelu                        Σ <δ_i, u min(x_i, 0)>        keeps min(x, 0) and δ
    elementwise    add, pow, where, …, expand     by row, as autograd gives it  keeps (B, *parameter)
    attention      multi-head attention           entered; rows come second
    weight_norm    both kinds                     u through g v / ‖v‖           keeps θ
    chain          view, to, sum, …               u by the same function        keeps nothing

Any other function of parameters alone (exp, a merged adapter, spectral norm in eval mode) needs no rule: u goes through
it by forward mode at θ (`derive.py`). A new file registers its functions with `register_rule` and is imported here.
"""

from . import attention as attention
from . import chain as chain
from . import convolution as convolution
from . import elementwise as elementwise
from . import embedding as embedding
from . import embedding_bag as embedding_bag
from . import linear as linear
from . import norm as norm
from . import prelu as prelu
from . import product as product
from . import weight_norm as weight_norm
from .shared import register_rule as register_rule
