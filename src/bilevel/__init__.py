"""Hypergradients for bilevel problems on pure PyTorch."""

from .hypergradient import hypergradient as hypergradient
from .methods import SAMA as SAMA
from .methods import SOBA as SOBA
from .methods import FiniteDifference as FiniteDifference
from .methods import ForwardMode as ForwardMode
from .methods import Implicit as Implicit
from .methods import Method as Method
from .methods import OneStep as OneStep
from .methods import Unrolled as Unrolled
from .methods import ValueFunctionPenalty as ValueFunctionPenalty
from .optimizers import SGD as SGD
from .optimizers import Adam as Adam
from .optimizers import AdamW as AdamW
from .optimizers import Optimizer as Optimizer
from .optimizers import State as State
from .problem import Bilevel as Bilevel
from .result import Result as Result
from .solvers import CG as CG
from .solvers import Direct as Direct
from .solvers import Neumann as Neumann
from .solvers import Nystrom as Nystrom
from .solvers import Solver as Solver
from .status import Status as Status
