"""Inner optimizers: pure, differentiable, with torch.optim's trajectories."""

from .adagrad import Adagrad as Adagrad
from .adam import Adam as Adam
from .adamw import AdamW as AdamW
from .muon import Muon as Muon
from .nadam import NAdam as NAdam
from .optimizer import Optimizer as Optimizer
from .optimizer import PerStep as PerStep
from .optimizer import Setting as Setting
from .optimizer import State as State
from .projected import Projected as Projected
from .rmsprop import RMSprop as RMSprop
from .sgd import SGD as SGD
