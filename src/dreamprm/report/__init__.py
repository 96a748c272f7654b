"""The report room: what a run measured, as a page that needs nothing beside it and as a table in the terminal."""

from dreamprm.report.page import write_report
from dreamprm.report.table import print_results

__all__ = ["print_results", "write_report"]
