"""Measures of vectors and rankings, and models measured with them on tasks.

May import `checkpoints` and below.
"""
