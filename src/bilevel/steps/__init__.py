"""The derivative of the step that a live optimizer has just taken, one file per optimizer."""

from .step_vjp import UnsupportedOptimizerError as UnsupportedOptimizerError
from .step_vjp import check_optimizer as check_optimizer
from .step_vjp import register_step as register_step
from .step_vjp import step_vjp as step_vjp
from .step_vjp import undo_step as undo_step
from .step_vjp import undoable as undoable
from .step_vjp import unwrap as unwrap
