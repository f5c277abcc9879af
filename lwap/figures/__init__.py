"""Plotly figures of layers, pairs, evaluations, searches, maps of embedding spaces and training.

Pure functions from arrays and lists to `plotly.graph_objects.Figure`. This package knows nothing
about encoders, tensors, tables, pages or files: it imports numpy, plotly and the states' names
only, never writes into an input, and two calls with equal arguments give equal figures.

Shape legend: S hidden states (state 0 = embeddings, state l = layer l, so S = layers + 1),
Q query states (S, or 1 for a single query), N sentences or documents, P sentence pairs,
K strategies, T tasks, M slices of a set of pairs. On a map, N points and F frames; a row is the
number of a point.

Three rules hold for every figure. Backgrounds are transparent, so that the page's own theme
shows through; `theme` picks the colours of text and marks for a "light" or a "dark" page.
A figure cannot know how wide it will be drawn, so everything is laid out for 340 px and up:
sentences stand above their row instead of beside it, and numbers that would not fit are left to
the hover. Heights are in pixels and already set.

Imports inside the package point downwards: `checks`, `texts`, `style` and `placement` import
nothing of it, `layout` builds on them and `marks` on `layout`; the other modules hold the figures
and import from all of these, but not from each other.
"""

from lwap.figures.changes import moved_pairs, weights_before_after
from lwap.figures.evaluate import difference_strip, layer_curve, slice_strip
from lwap.figures.grid import strategy_grid
from lwap.figures.layers import (
    layer_attention,
    layer_attention_difference,
    layer_attention_grid,
    model_weights,
    sentence_weights,
    state_similarity,
)
from lwap.figures.maps import map_span, map_walk, space_map
from lwap.figures.pairs import (
    knockout_bars,
    layer_similarity,
    pair_heatmap,
    pair_scores,
    pair_weights,
    spearman_strip,
)
from lwap.figures.plane import alignment_uniformity
from lwap.figures.scatter import gold_scatter
from lwap.figures.search import rank_changes
from lwap.figures.spread import cosine_distribution, geometry_course, spectra
from lwap.figures.style import (
    ACCENT,
    BACKGROUND,
    DIVERGING,
    STATE_COLORSCALE,
    strategy_color,
    strategy_symbol,
)
from lwap.figures.training import (
    MOST_RUNS,
    Course,
    course,
    optimisation,
    plane_path,
    weights_over_time,
)
from lwap.names import state_name, state_tick

__all__ = [
    "ACCENT",
    "BACKGROUND",
    "DIVERGING",
    "MOST_RUNS",
    "STATE_COLORSCALE",
    "Course",
    "alignment_uniformity",
    "cosine_distribution",
    "course",
    "difference_strip",
    "geometry_course",
    "gold_scatter",
    "knockout_bars",
    "layer_attention",
    "layer_attention_difference",
    "layer_attention_grid",
    "layer_curve",
    "layer_similarity",
    "map_span",
    "map_walk",
    "model_weights",
    "moved_pairs",
    "optimisation",
    "pair_heatmap",
    "pair_scores",
    "pair_weights",
    "plane_path",
    "rank_changes",
    "sentence_weights",
    "slice_strip",
    "space_map",
    "spearman_strip",
    "spectra",
    "state_name",
    "state_similarity",
    "state_tick",
    "strategy_color",
    "strategy_grid",
    "strategy_symbol",
    "weights_before_after",
    "weights_over_time",
]
