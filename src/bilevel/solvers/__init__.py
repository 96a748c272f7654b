"""Solvers for A x = b, one per file."""

from .bicgstab import BiCGSTAB as BiCGSTAB
from .cg import CG as CG
from .direct import Direct as Direct
from .gmres import GMRES as GMRES
from .neumann import Neumann as Neumann
from .normal_cg import NormalCG as NormalCG
from .nystrom import Nystrom as Nystrom
from .solver import Solution as Solution
from .solver import Solver as Solver
