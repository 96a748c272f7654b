"""Solvers of the linear system of implicit differentiation."""

from .base import Solution as Solution
from .base import Solver as Solver
from .cg import CG as CG
from .direct import Direct as Direct
from .neumann import Neumann as Neumann
from .nystrom import Nystrom as Nystrom
