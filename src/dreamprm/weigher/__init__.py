"""Weighers: what makes a data weight for every training example."""

from dreamprm.weigher.building import WEIGHERS as WEIGHERS
from dreamprm.weigher.building import build_weigher as build_weigher
from dreamprm.weigher.domain_table import DomainTable as DomainTable
from dreamprm.weigher.features import Features as Features
from dreamprm.weigher.features import from_batch as from_batch
from dreamprm.weigher.instance_net import InstanceNet as InstanceNet
from dreamprm.weigher.instance_table import InstanceTable as InstanceTable
from dreamprm.weigher.row_adam import RowAdam as RowAdam
from dreamprm.weigher.saving import WeigherError as WeigherError
from dreamprm.weigher.saving import load as load
from dreamprm.weigher.saving import save as save
from dreamprm.weigher.small_loss import SmallLoss as SmallLoss
from dreamprm.weigher.step_net import StepNet as StepNet
from dreamprm.weigher.step_table import StepTable as StepTable
from dreamprm.weigher.uniform import Uniform as Uniform
from dreamprm.weigher.weigher import Weigher as Weigher
from dreamprm.weigher.weigher import WeigherSettings as WeigherSettings
from dreamprm.weigher.weigher import project as project
