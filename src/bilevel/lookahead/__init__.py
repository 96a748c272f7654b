"""The fast path: exact hypergradients of data weights around a live optimizer."""

from . import rules as rules
from .check import HypergradientCheckError as HypergradientCheckError
from .jvp import ZeroTangentError as ZeroTangentError
from .lookahead import Lookahead as Lookahead
from .processes import Processes as Processes
from .row_maps import RowMap as RowMap
from .row_maps import RowsError as RowsError
from .rules import register_rule as register_rule
from .tape import Entry as Entry
from .tape import Tape as Tape
from .tracked import NoRuleError as NoRuleError
from .tracked import Tracked as Tracked
from .tracked import plain as plain
