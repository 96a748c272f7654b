"""Hypergradients for bilevel problems on pure PyTorch.

Public are the names below, and those that `bilevel.steps`, `bilevel.optimizers`, `bilevel.solvers`, `bilevel.methods`,
`bilevel.lookahead` and `bilevel.testing` list in their own `__init__`. The files inside are named after what stands in
them so that one finds it; import it from the package. A name with an underscore before it is nobody's but ours.
"""

from . import testing as testing
from ._hypergradient import hypergradient as hypergradient
from .lookahead import HypergradientCheckError as HypergradientCheckError
from .lookahead import Lookahead as Lookahead
from .lookahead import NoRuleError as NoRuleError
from .lookahead import RowsError as RowsError
from .lookahead import ZeroTangentError as ZeroTangentError
from .lookahead import register_rule as register_rule
from .methods import SAMA as SAMA
from .methods import SOBA as SOBA
from .methods import FiniteDifference as FiniteDifference
from .methods import ForwardMode as ForwardMode
from .methods import Implicit as Implicit
from .methods import Method as Method
from .methods import OneStep as OneStep
from .methods import Reptile as Reptile
from .methods import Unrolled as Unrolled
from .methods import ValueFunctionPenalty as ValueFunctionPenalty
from .optimizers import SGD as SGD
from .optimizers import Adagrad as Adagrad
from .optimizers import Adam as Adam
from .optimizers import AdamW as AdamW
from .optimizers import Muon as Muon
from .optimizers import NAdam as NAdam
from .optimizers import Optimizer as Optimizer
from .optimizers import PerStep as PerStep
from .optimizers import Projected as Projected
from .optimizers import RMSprop as RMSprop
from .optimizers import State as State
from .problem import Bilevel as Bilevel
from .result import Result as Result
from .root import FixedPoint as FixedPoint
from .root import Root as Root
from .root import proximal_map as proximal_map
from .solvers import CG as CG
from .solvers import GMRES as GMRES
from .solvers import BiCGSTAB as BiCGSTAB
from .solvers import Direct as Direct
from .solvers import Neumann as Neumann
from .solvers import NormalCG as NormalCG
from .solvers import Nystrom as Nystrom
from .solvers import Solver as Solver
from .status import Status as Status
from .steps import UnsupportedOptimizerError as UnsupportedOptimizerError
from .steps import register_step as register_step
from .steps import step_vjp as step_vjp
