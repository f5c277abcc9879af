"""Measures: semantic textual similarity, geometry of the space, semantic search."""
