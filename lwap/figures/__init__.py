"""Plotly figures of layers, pairs, evaluations, searches, maps of embedding spaces and training.

Pure functions from arrays and lists to `plotly.graph_objects.Figure`. This package knows nothing
about encoders, tensors, tables, pages or files: it imports numpy, plotly and the states' names
only, never writes into an input, and two calls with equal arguments give equal figures.

Shape legend: S hidden states (state 0 = embeddings, state l = layer l, so S = layers + 1),
Q query states (S, or 1 for a single query), N sentences or documents, P sentence pairs,
K strategies, T tasks, M slices of a set of pairs. On a map, N points and F frames; a row is the
number of a point.

Every figure takes `theme`, "light" or "dark", and raises ValueError, with what is accepted, where
shapes disagree, a number is infinite or without need missing, a name is no strategy or the theme is
unknown; docstrings name what else. Backgrounds are transparent, so that the page shows through.
A figure cannot know how wide it will be drawn, so everything is laid out for 340 px and up:
sentences stand above their row instead of beside it, and numbers that would not fit are left to
the hover. Heights are in pixels and already set.

A figure is a short composition of a grammar. `template` is the style, `axes` and `marks` are the
pieces, `panels` stacks plots with headers over one axis, `labels` are texts inside a plot, and
`charts` and `curves` are panels that several figures have. Imports point downwards from the figures
through these to `checks`, `texts`, `style` and `placement`.
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
from lwap.figures.maps import map_animation, map_span, space_map
from lwap.figures.pairs import (
    knockout_bars,
    layer_similarity,
    pair_heatmap,
    pair_scores,
    pair_weights,
    spearman_strip,
)
from lwap.figures.plane import alignment_uniformity
from lwap.figures.points import PointColors, PointMarks
from lwap.figures.run import MOST_RUNS, RunCurves
from lwap.figures.run_curves import optimisation_curves, training_curves
from lwap.figures.run_path import alignment_uniformity_path
from lwap.figures.run_weights import weights_over_time
from lwap.figures.scatter import gold_scatter
from lwap.figures.search import rank_changes
from lwap.figures.spread import cosine_distribution, layer_geometry, spectra
from lwap.figures.style import (
    ACCENT,
    BACKGROUND,
    DIVERGING,
    STATE_COLORSCALE,
    strategy_color,
    strategy_symbol,
)
from lwap.names import state_name, state_tick

__all__ = [
    "ACCENT",
    "BACKGROUND",
    "DIVERGING",
    "MOST_RUNS",
    "STATE_COLORSCALE",
    "PointColors",
    "PointMarks",
    "RunCurves",
    "alignment_uniformity",
    "alignment_uniformity_path",
    "cosine_distribution",
    "difference_strip",
    "gold_scatter",
    "knockout_bars",
    "layer_attention",
    "layer_attention_difference",
    "layer_attention_grid",
    "layer_curve",
    "layer_geometry",
    "layer_similarity",
    "map_animation",
    "map_span",
    "model_weights",
    "moved_pairs",
    "optimisation_curves",
    "pair_heatmap",
    "pair_scores",
    "pair_weights",
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
    "training_curves",
    "weights_before_after",
    "weights_over_time",
]
