"""Process reward models: prompt, tokens, heads, collator, aggregation, storage."""

from dreamprm.prm.aggregation import Aggregation as Aggregation
from dreamprm.prm.aggregation import aggregate as aggregate
from dreamprm.prm.collate import Batch as Batch
from dreamprm.prm.collate import Collator as Collator
from dreamprm.prm.heads import HeadKind as HeadKind
from dreamprm.prm.model import PRM as PRM
from dreamprm.prm.processor import load_processor as load_processor
from dreamprm.prm.prompt import Layout as Layout
from dreamprm.prm.prompt import Prompt as Prompt
from dreamprm.prm.storage import PRMLoadError as PRMLoadError
