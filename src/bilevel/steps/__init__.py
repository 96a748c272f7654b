"""The derivative of the update that a live optimizer has just taken.

One family of optimizers per file, `NAME_step.py`; one line each in the table of `known_optimizers.py`.
"""

from ._step_vjp import refuse_sparse as refuse_sparse
from ._step_vjp import step_vjp as step_vjp
from ._step_vjp import undo_step as undo_step
from ._step_vjp import undoable as undoable
from .known_optimizers import ELEMENTWISE as ELEMENTWISE
from .known_optimizers import UnsupportedOptimizerError as UnsupportedOptimizerError
from .known_optimizers import check_optimizer as check_optimizer
from .known_optimizers import refuse_whole as refuse_whole
from .known_optimizers import register_step as register_step
from .known_optimizers import unwrap as unwrap
from .update import Update as Update
from .update import diagonal as diagonal
