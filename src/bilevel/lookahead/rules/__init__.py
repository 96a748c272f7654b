"""The ghost rules, one kind of layer per file: what to keep of a use, and how it answers <u, ∇ℓ_i>.

    linear        F.linear, matmul, addmm        Σ_t <δ_it, U x_it + u_b>      keeps x and δ
    embedding     F.embedding                    Σ_t <δ_it, U[token_it]>       keeps δ
    convolution   F.conv1d, conv2d, conv3d       Σ <δ_i, conv(x_i, U) + u_b>   keeps x and δ
    norm          layer, RMS, batch (eval)       <Σ_t δ_it x̂_it, u>            keeps (B, C)
    elementwise   add, mul, …, expand, cat       by row, as autograd gives it  keeps (B, *parameter)
    chain         view, to, exp, …               maps u by its derivative      keeps θ where it is not linear

A new file registers its functions with `register_rule` and is imported here.
"""

from . import chain as chain
from . import convolution as convolution
from . import elementwise as elementwise
from . import embedding as embedding
from . import linear as linear
from . import norm as norm
from .shared import register_rule as register_rule
