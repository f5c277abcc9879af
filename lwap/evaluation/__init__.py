"""Measures: semantic textual similarity, with intervals."""
