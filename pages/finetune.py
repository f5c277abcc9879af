"""Fine-tune: can a minute of training make it better for me?"""

from lwap.ui import frame
from lwap.ui.finetune import curves, form, runs

READING = """
Training pulls a sentence towards one that means the same, and away from all others of its batch.
Every few steps the model is measured on the **dev set**; the best step (◆) is what is kept. A loss
that falls while the dev score does not is learning the rows and nothing else.

**The dashed line** is the encoder as it was, pooled by its mean. Only where a run ends above it,
and its interval against the mean excludes zero, was anything gained that this set can see; the step
was chosen on that same set, so the score is optimistic. *Evaluate* tests the model on other pairs.

**Alignment and uniformity**: lower is better for both. Going up in one to go down in the other is a
trade, not a gain.

A run is a process of its own: it goes on when you close the page or the app ends, and is found
again. *Stop* leaves a checkpoint from which *Resume* continues.
"""

frame.header("Fine-tune", "Can a minute of training make it better for me?", READING)

with frame.messages():
    view = runs.view()
    if view == runs.NEW:
        runs.say_at_work()
        form.form()
    elif view == runs.RUNS:
        runs.watch()
    else:
        curves.compare()
