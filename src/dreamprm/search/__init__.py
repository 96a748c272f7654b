"""Search over the steps of a policy, led by step scores, with a token budget: beam search, DVTS, lookahead."""

from dreamprm.search.beam_search import beam as beam
from dreamprm.search.tree import Node as Node
from dreamprm.search.tree import Tree as Tree
from dreamprm.search.verifier_tree import dvts as dvts
