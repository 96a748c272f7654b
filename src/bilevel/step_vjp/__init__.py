"""The derivative of the step that a live optimizer has just taken, one file per optimizer."""

from .api import UnsupportedOptimizerError as UnsupportedOptimizerError
from .api import check_optimizer as check_optimizer
from .api import register_step as register_step
from .api import step_vjp as step_vjp
from .api import undo_step as undo_step
from .api import undoable as undoable
from .api import unwrap as unwrap
