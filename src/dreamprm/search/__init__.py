"""Search over the steps of a policy, led by step scores, with a token budget: beam search, DVTS, lookahead."""

from dreamprm.search.beam import beam as beam
from dreamprm.search.dvts import dvts as dvts
from dreamprm.search.tree import Node as Node
from dreamprm.search.tree import Tree as Tree
