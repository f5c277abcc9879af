"""What a person looks at: which layers a model listens to, pairs, a search, what training changed.

May import `library`, `jobs`, `training`, `projection`, `evaluation`, `checkpoints` and below.
"""
