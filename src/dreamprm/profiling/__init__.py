"""Where a run's time goes: the clock, what `profile=true` keeps, and its page."""

from dreamprm.profiling.clock import Clock as Clock
from dreamprm.profiling.profile_page import write_profile as write_profile
from dreamprm.profiling.profile_run import Profile as Profile
