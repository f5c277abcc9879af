"""What the tests of the pages share: reading figures, and answering widgets AppTest has none for.

AppTest knows neither Plotly charts nor the data editor. Both keep their state in one JSON string,
which is sent here just as a browser sends it, so that callbacks run.
"""

import base64
import itertools
import json
import math
import re
from pathlib import Path

import numpy as np
from streamlit.testing.v1 import AppTest

from lwap.ui import change, checking, evaluations, mapping, training_data

ROOT = Path(__file__).resolve().parents[2]
SECONDS = 120  # before a run counts as hung; the first one imports torch and loads a model
PAGES = {
    name: f"pages/{name}.py"
    for name in ("layers", "pairs", "search", "evaluate", "space", "finetune", "models")
}

TITLES = {name: name.capitalize() for name in PAGES} | {"finetune": "Fine-tune"}


def settle(app: AppTest, seconds: float = SECONDS) -> AppTest:
    """Wait for the work that was started, then run as the page's clock does, until none is."""
    while True:
        for found in works():
            assert found.wait(seconds)
        app.run()
        if not any(found.is_active for found in works()):
            return app


def works() -> list:
    """Return what the pages have asked the server for, in all registries."""
    registries = (
        evaluations._registry,
        mapping._spaces,
        mapping._maps,
        mapping._lookups,
        checking._registry,
        training_data._downloads,
        change._registry,
    )
    return [found for registry in registries for found in list(registry().found.values())]


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


def lasso(app: AppTest, key: str, corners, *, hidden=()) -> AppTest:
    """Draw around points of a map, then run; `hidden` are traces that the legend has hidden.

    As a browser does, it sends the corners, and every mark inside with its customdata.
    """
    points = [
        {"curve_number": number, "customdata": row}
        for number, entry in enumerate(figures(app)[key]["data"])
        if entry.get("name") not in hidden and "customdata" in entry
        for x, y, row in zip(entry["x"], entry["y"], entry["customdata"], strict=True)
        if is_inside(x, y, corners)
    ]
    x, y = zip(*corners, strict=True)
    area = {"xref": "x", "yref": "y", "x": list(map(float, x)), "y": list(map(float, y))}
    points = [point | {"customdata": [int(point["customdata"][0])]} for point in points]
    selection = {"points": points, "point_indices": [], "box": [], "lasso": [area]}
    return _answer(app, _charts(app)[key].proto.id, {"selection": selection})


def is_inside(x: float, y: float, corners) -> bool:
    """Return whether a point lies in a polygon, by the angle that its corners go round it."""
    angles = [math.atan2(up - y, across - x) for across, up in [*corners, corners[0]]]
    turns = [(b - a + math.pi) % (2 * math.pi) - math.pi for a, b in itertools.pairwise(angles)]
    return abs(sum(turns)) > math.pi


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
