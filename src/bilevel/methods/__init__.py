"""Ways to a hypergradient, one per file."""

from .finite_difference import FiniteDifference as FiniteDifference
from .forward_mode import ForwardMode as ForwardMode
from .implicit import Implicit as Implicit
from .method import Method as Method
from .one_step import OneStep as OneStep
from .reptile import Reptile as Reptile
from .sama import SAMA as SAMA
from .soba import SOBA as SOBA
from .unrolled import Unrolled as Unrolled
from .value_function_penalty import ValueFunctionPenalty as ValueFunctionPenalty
