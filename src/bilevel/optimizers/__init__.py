"""Inner optimizers: pure, differentiable, with torch.optim's trajectories."""

from .adam import Adam as Adam
from .adamw import AdamW as AdamW
from .base import Optimizer as Optimizer
from .base import Setting as Setting
from .base import State as State
from .sgd import SGD as SGD
