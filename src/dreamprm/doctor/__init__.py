"""The doctor: reads any data set and says what a trainer must know before training on it."""

from dreamprm.doctor._examine import examine as examine
from dreamprm.doctor._examine import examine_and_show as examine_and_show
from dreamprm.doctor.settings import DoctorSettings as DoctorSettings
