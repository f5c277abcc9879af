"""Evaluate: is another layer, or another pooling, better for my data?"""

import streamlit as st

from lwap.ui import evaluate, frame, widgets

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
    asked, tasks, whiten_on, strategies = evaluate.request(model)
    evaluation = evaluate.run(asked, tasks, whiten_on)
    if evaluation.is_active:
        evaluate.follow(evaluation)
        st.stop()
    if evaluation.result is None:
        st.rerun()  # it failed just now, which the next run says
    result = evaluate.chosen_columns(evaluation.result, model, strategies)
    evaluate.grid(result)
    evaluate.say_mismatch(result)
    view = widgets.views("View", evaluate.VIEWS, "evaluate_view")
    if view == evaluate.CURVE:
        evaluate.layer_curve(result)
    elif view == evaluate.SPACE:
        evaluate.space(evaluation, result)
    elif view == evaluate.ERRORS:
        evaluate.errors(result)
    elif view == evaluate.SLICES:
        evaluate.slices(result)
    else:
        evaluate.differences(result)
    evaluate.take_away(evaluation, result)
