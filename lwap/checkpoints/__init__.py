"""Models as folders: what they say of themselves, loaded, saved, verified; a model with its cache.

May import `pooling`, `datasets` and below.
"""
