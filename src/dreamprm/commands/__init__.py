"""The stages as commands of their own, with files between them: policy and PRM need never be in memory together."""
