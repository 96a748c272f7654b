"""Solvers of the linear system of implicit differentiation."""

from .cg import CG as CG
from .direct import Direct as Direct
from .neumann import Neumann as Neumann
from .nystrom import Nystrom as Nystrom
from .solver import Solution as Solution
from .solver import Solver as Solver
