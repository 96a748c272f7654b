"""What a PRM and a weigher are worth: best-of-N, step-level figures, weights against known quality."""

from dreamprm.evaluate.baselines import position_scores as position_scores
from dreamprm.evaluate.baselines import stronger_model_scores as stronger_model_scores
from dreamprm.evaluate.best_of_n import METHODS as METHODS
from dreamprm.evaluate.best_of_n import best_of_n_table as best_of_n_table
from dreamprm.evaluate.best_of_n import block_accuracies as block_accuracies
from dreamprm.evaluate.best_of_n import difference_table as difference_table
from dreamprm.evaluate.best_of_n import question_accuracies as question_accuracies
from dreamprm.evaluate.candidates import Candidates as Candidates
from dreamprm.evaluate.compare_baselines import compare as compare
from dreamprm.evaluate.figures import FigureSettings as FigureSettings
from dreamprm.evaluate.first_error import first_error_f1 as first_error_f1
from dreamprm.evaluate.intervals import Interval as Interval
from dreamprm.evaluate.intervals import mean_interval as mean_interval
from dreamprm.evaluate.intervals import paired_difference as paired_difference
from dreamprm.evaluate.intervals import wilson as wilson
from dreamprm.evaluate.steps import step_metrics as step_metrics
from dreamprm.evaluate.weights import domain_rank_correlation as domain_rank_correlation
from dreamprm.evaluate.weights import separation as separation
