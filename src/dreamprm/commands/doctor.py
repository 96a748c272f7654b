"""`doctor`: what a trainer must know of data. Status 0: nothing grave, 1: grave findings, 2: it cannot be read."""

from dreamprm.commands.command import command
from dreamprm.doctor import examine_and_show
from dreamprm.doctor.settings import DoctorSettings

__all__ = ["main"]

main = command("doctor", DoctorSettings, examine_and_show)
