"""Inner optimizers: pure, differentiable, with torch.optim's trajectories."""

from .adam import Adam as Adam
from .adamw import AdamW as AdamW
from .optimizer import Optimizer as Optimizer
from .optimizer import Setting as Setting
from .optimizer import State as State
from .sgd import SGD as SGD
