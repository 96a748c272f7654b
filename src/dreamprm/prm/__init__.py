"""Process reward models: prompt, tokens, heads, collator, aggregation, storage."""

from dreamprm.choices import HeadKind as HeadKind
from dreamprm.choices import Layout as Layout
from dreamprm.prm.aggregation import AGGREGATIONS as AGGREGATIONS
from dreamprm.prm.aggregation import aggregate as aggregate
from dreamprm.prm.collate import Batch as Batch
from dreamprm.prm.collate import Collator as Collator
from dreamprm.prm.model import PRM as PRM
from dreamprm.prm.processor import load_processor as load_processor
from dreamprm.prm.prompt import Prompt as Prompt
from dreamprm.prm.storage import PRMLoadError as PRMLoadError
