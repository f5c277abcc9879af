"""Maps of an embedding space: two dimensions out of D, and how much they can be believed.

`neighbours` knows the full space, `maps` draws it in the plane, `quality` says what was lost on the
way, `space` compares two spaces, `process` and `worker` run UMAP in a process of its own. Knows
arrays and the cache, no models and no figures.
"""

from lwap.projection.maps import Method, Projection, project

__all__ = ["Method", "Projection", "project"]
