"""The embedded world: drawn images, questions with known steps, a tiny InternVL (policy and base), graded data."""

from dreamprm.world.base_model import base_folder as base_folder
from dreamprm.world.base_model import reader_folder as reader_folder
from dreamprm.world.captions import DenseExample as DenseExample
from dreamprm.world.captions import dense_batch as dense_batch
from dreamprm.world.captions import dense_examples as dense_examples
from dreamprm.world.captions import dense_loss as dense_loss
from dreamprm.world.questions import DOMAINS as DOMAINS
from dreamprm.world.questions import OFF_TARGET as OFF_TARGET
from dreamprm.world.questions import TARGETS as TARGETS
from dreamprm.world.questions import TRIVIAL as TRIVIAL
from dreamprm.world.questions import Question as Question
from dreamprm.world.questions import check_answer as check_answer
from dreamprm.world.questions import check_disjoint as check_disjoint
from dreamprm.world.questions import check_step as check_step
from dreamprm.world.questions import sample_question as sample_question
from dreamprm.world.splits import load as load
from dreamprm.world.trouble import KINDS as KINDS
from dreamprm.world.trouble import WorldConfig as WorldConfig
