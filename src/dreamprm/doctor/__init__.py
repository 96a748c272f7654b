"""The doctor: reads any data set and says what a trainer must know before training on it."""

from dreamprm.doctor.examine import examine as examine
from dreamprm.doctor.examine import main as main
from dreamprm.doctor.settings import DoctorSettings as DoctorSettings
from dreamprm.doctor.settings import parse_settings as parse_settings
