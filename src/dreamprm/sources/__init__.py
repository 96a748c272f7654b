"""What a run trains on: files, a pool of collections, the embedded world, each behind one contract."""

from dreamprm.sources.run_data import SOURCES as SOURCES
from dreamprm.sources.run_data import RunData as RunData
from dreamprm.sources.run_data import check_needs as check_needs
from dreamprm.sources.run_data import known_good as known_good
from dreamprm.sources.run_data import load_data as load_data
from dreamprm.sources.run_data import model_folder as model_folder
from dreamprm.sources.run_data import named_split as named_split
from dreamprm.sources.source import DenseLoss as DenseLoss
from dreamprm.sources.source import HeldOut as HeldOut
from dreamprm.sources.source import Source as Source
