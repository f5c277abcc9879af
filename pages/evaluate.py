"""Evaluate: is another layer, or another pooling, better for my data?"""

import streamlit as st

from lwap.ui import frame, widgets
from lwap.ui.evaluate import asked, errors, grid, views

READING = """
Spearman × 100 between cosines and gold scores, higher is better. Colours run from the worst to the
best of each column. The best is **bold**; what is underlined is **not significantly worse** (paired
bootstrap on the same resamples, corrected for the number of strategies by Holm). Where much is
underlined, the data cannot tell the strategies apart.

Rows below the gap read **one layer** alone, by its mean or its first token. If one of them matches
the model's own pooling on your data, the layers above it add nothing there.

Every number has an interval: hover a cell. Click one to look at its mistakes under *Errors*.
"""

frame.header("Evaluate", "Which is better, and is the difference real?", READING)
model = frame.model_name()

with frame.messages():
    request, tasks, whiten_on, strategies = asked.request(model)
    evaluation = asked.run(request, tasks, whiten_on)
    if evaluation.is_active:
        asked.follow(evaluation)
    if evaluation.result is None:
        st.rerun()  # it failed just now, which the next run says
    result = grid.chosen_columns(evaluation.result, model, strategies)
    grid.grid(result)
    grid.say_mismatch(result)
    drawn = {
        "Layer curve": views.layer_curve,
        "Alignment and uniformity": lambda result: views.plane(evaluation, result),
        "Errors": errors.errors,
        "Slices": views.slices,
        "Differences": views.differences,
    }
    drawn[widgets.views("View", list(drawn), "evaluate_view")](result)
    grid.take_away(evaluation, result)
