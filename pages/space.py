"""Space: is my space uniform, and what changed?"""

from lwap.ui import frame, sentences, space, widgets

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
    chosen, colour = space.choices(model, data)
    if chosen.request.method == "umap":
        space.warm_up()
    found = space.measured(chosen, data)
    drawn = space.drawn_maps(chosen, found)
    shown = space.colours(colour, data, found, drawn)
    view = space.view_of(chosen, data, found, drawn, shown)
    space.two_maps(view)
    space.drop_box()
    space.numbers(view)
    below = widgets.views("View", space.VIEWS, "space_view")
    if below == space.SPREAD:
        space.spread(view)
    elif below == space.CHANGED:
        space.what_changed(view)
    elif below == space.LAYERS:
        space.layer_course(view)
    elif below == space.WALK:
        space.layer_walk(view)
    else:
        space.chance(view)
    space.take_away(view)
