"""Models: which trained poolings do I have, and can I trust them?"""

import streamlit as st

from lwap.ui import frame
from lwap.ui.models import entries, importing, one

READING = """
One row a model. **Dev score** is Spearman × 100 on the set that the best step was chosen on, so it
is optimistic; scores on different sets cannot be compared. **Against mean** is the difference to
the untouched encoder on the same pairs: only where its interval excludes zero did training change
anything that this set can see. *Evaluate* tests the model on pairs that it was not chosen on.

**Layer weights** say which states a pooling reads, on the mean over its dev sentences. A plain mean
reads the last layer alone. A pooling *+ last mean* adds that layer once more, beside its weights.

*What did it change?* reads the model and its untouched encoder on the same pairs and sentences. A
gain on the set that the step was chosen on is no evidence of one elsewhere; choose another.

*Verify* checks every file by SHA-256, the classes, and the encoder, and loads the model. What you
import is checked the same way before it is kept; no code in it ever runs.
"""

frame.header("Models", "Which trained poolings do I have, and can I trust them?", READING)

with frame.messages():
    found = entries.entries()
    chosen = entries.chosen_of(found)
    entries.table(found)
    left, right = st.columns(2, gap="large")
    with left:
        entries.weights_figure(found, chosen)
    with right:
        one.say_what_happened()
        entries.choose(found, chosen)
        one.one_model(chosen)
        importing.import_box()
    one.change_box(chosen)
    one.card(chosen)
