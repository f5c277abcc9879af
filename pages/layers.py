"""Layers: which layers does the model listen to for this sentence?"""

import streamlit as st

from lwap.ui import cache, frame, layers, layerwise, widgets

READING = """
**Attention** (middle): each row is a query state, each column the state that it looks at; a row
sums to 1. **Weights** (top) are the column means, i.e. what each state contributes to the pooled
vector; the dotted line is what every state would get if all were treated alike.

**Knock-out** (bottom) removes one state, renormalises the attention and shows how far the
embedding moves (1 − cosine, higher is a larger effect). It stands in line with the weights on
purpose: a high weight on a state whose removal changes nothing explains nothing.

States are ordered: *emb* is the embedding output before any layer, then layer 1 up to the last.
"""
VIEWS = ["One sentence", "Side by side", "Difference"]

frame.header("Layers", "Which layers does the model listen to for this sentence?", READING)
model = frame.model_name()
inputs, picture = st.columns([1, 2], gap="large")

with inputs, frame.messages():
    sentences = layers.sentence_box("example", "s")

with picture, frame.messages():
    facts = cache.facts(model)
    if not facts.has_attention:
        layers.states_without_attention(model, sentences)
        st.stop()
    with widgets.progress("Sentences encoded", len(sentences)) as progress:
        explanation = cache.explain(model, sentences, progress)
    widgets.say_truncated(explanation.is_truncated, facts.max_tokens, "Sentence")
    view = widgets.views("View", VIEWS, "view")
    if view == VIEWS[0]:
        row = widgets.choose("Sentence", sentences, "sentence")
        layerwise.sentence(explanation, row)
    elif view == VIEWS[1]:
        layers.side_by_side(explanation)
    else:
        layers.difference(explanation, model, sentences)

st.subheader("All sentences", anchor=False)
st.caption(
    "Weight of each state for each sentence; on top the mean over the set, with its standard "
    "deviation. Flat bars mean that the layers are used alike whatever the sentence says."
)
layers.all_sentences(explanation)
layers.take_away(explanation)
