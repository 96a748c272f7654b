"""The derivative of the update that a live optimizer has just taken: one family per file, one line each in `table`."""

from ._step_vjp import refuse_sparse as refuse_sparse
from ._step_vjp import step_vjp as step_vjp
from ._step_vjp import undo_step as undo_step
from ._step_vjp import undoable as undoable
from .table import UnsupportedOptimizerError as UnsupportedOptimizerError
from .table import check_optimizer as check_optimizer
from .table import register_step as register_step
from .table import unwrap as unwrap
from .update import Update as Update
from .update import diagonal as diagonal
