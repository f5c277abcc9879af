"""What the tests of the pages share: reading figures, and answering widgets AppTest has none for.

AppTest knows neither Plotly charts nor the data editor. Both keep their state in one JSON string,
which is sent here just as a browser sends it, so that callbacks run.
"""

import base64
import json
import re
from pathlib import Path

import numpy as np
from streamlit.testing.v1 import AppTest

from lwap.ui import evaluations

ROOT = Path(__file__).resolve().parents[2]
SECONDS = 120  # before a run counts as hung; the first one imports torch and loads a model
PAGES = {name: f"pages/{name}.py" for name in ("layers", "pairs", "search", "evaluate")}


def settle(app: AppTest, seconds: float = SECONDS) -> AppTest:
    """Wait for the evaluations that were started, then run as the page's clock does."""
    for found in list(evaluations._registry().found.values()):
        assert found.wait(seconds)
    return app.run()


def figures(app: AppTest) -> dict[str, dict]:
    """Return the figures of a page by key, as the browser gets them, arrays decoded."""
    return {
        element.key: _decoded(json.loads(element.proto.spec)) for element in _charts(app).values()
    }


def trace(app: AppTest, key: str, name: str) -> dict:
    """Return the trace of a figure that has a name."""
    found = [entry for entry in figures(app)[key]["data"] if entry.get("name") == name]
    assert found, [entry.get("name") for entry in figures(app)[key]["data"]]
    return found[0]


def texts_in(figure: dict) -> str:
    """Return everything that a figure says, as one string without line breaks."""
    return re.sub(r"\s*<br>\s*", " ", json.dumps(figure, default=str, ensure_ascii=False))


def click(app: AppTest, key: str, customdata) -> AppTest:
    """Click the dot with this customdata in a figure, then run; None clicks beside all dots."""
    points = [] if customdata is None else [{"curve_number": 1, "customdata": customdata}]
    selection = {"points": points, "point_indices": [], "box": [], "lasso": []}
    return _answer(app, _charts(app)[key].proto.id, {"selection": selection})


def edit(app: AppTest, *, cells=None, added=(), deleted=()) -> AppTest:
    """Edit the table of pairs, then run: cells as {row: {column: value}}, new rows, removed rows.

    As in a browser, each call states all edits since the table was filled.
    """
    rows = {str(row): values for row, values in (cells or {}).items()}
    state = {"edited_rows": rows, "added_rows": list(added), "deleted_rows": list(deleted)}
    return _answer(app, app.dataframe[0].proto.id, state)


def shown(elements) -> str:
    """Return the text of messages or captions, one a line, Markdown's escapes taken out."""
    return "\n".join(re.sub(r"\\(.)", r"\1", element.value) for element in elements)


def _charts(app: AppTest) -> dict:
    return {element.key: element for element in app.get("plotly_chart")}


def _answer(app: AppTest, widget_id: str, state: dict) -> AppTest:
    states = app._tree.get_widget_states()
    answer = states.widgets.add()
    answer.id = widget_id
    answer.string_value = json.dumps(state)
    return app._run(states)


def _decoded(value):
    if isinstance(value, dict):
        if value.keys() >= {"dtype", "bdata"}:
            array = np.frombuffer(base64.b64decode(value["bdata"]), np.dtype(value["dtype"]))
            shape = value.get("shape")
            return array.reshape([int(side) for side in shape.split(",")]) if shape else array
        return {key: _decoded(inner) for key, inner in value.items()}
    return [_decoded(inner) for inner in value] if isinstance(value, list) else value
