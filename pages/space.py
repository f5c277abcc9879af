"""Space: is my space uniform, and what changed?"""

from lwap.ui import frame, widgets
from lwap.ui.space import below, choices, colours, maps, sentences, waiting

READING = """
Every point is a sentence, in **two spaces side by side**: two poolings, two layers, or one pooling
before and after training. The second map is turned onto the first and starts from the same places,
so what moves has changed. Lasso sentences in one map to find them in the other; click one for its
nearest neighbours.

**A map is two dimensions out of hundreds.** Trustworthiness and k-NN recall say what it keeps,
*Projection error* shows where it lies, and *Chance* what another seed would change. Neighbours,
clusters and the list of what changed come from the full space, never from the plane.

**Uniformity** is not seen on a map: look at *Spread*. Contrastive training pulls the cosines of
random sentences towards 0 and uses more directions; *Layer by layer* shows where that happens.
"""

frame.header("Space", "Is my space uniform, and what changed?", READING)
model = frame.model_name()

with frame.messages():
    data = sentences.data_box("s")
    chosen, colour = choices.choices(model, data)
    if chosen.method == "umap":
        waiting.warm_up()
    found = waiting.measured(chosen, data)
    drawn = waiting.drawn_maps(chosen, found)
    shown = colours.colours(colour, data, found, drawn)
    view = maps.view_of(chosen, data, found, drawn, shown)
    maps.two_maps(view)
    maps.drop_box()
    below.numbers(view)
    below.VIEWS[widgets.views("View", list(below.VIEWS), "space_view")](view)
    below.take_away(view)
