"""What the tests of the pages share: reading figures, and answering widgets AppTest has none for.

AppTest knows neither Plotly charts nor the data editor. Both keep their state in one JSON string,
which is sent here just as a browser sends it, so that callbacks run.
"""

import base64
import io
import itertools
import json
import math
import re
from pathlib import Path

import numpy as np
import pandas as pd
from streamlit.testing.v1 import AppTest

from lwap.figures.style import palette_of
from lwap.ui import change
from lwap.ui.evaluate import evaluations
from lwap.ui.finetune import checking, training_data
from lwap.ui.space import mapping

ROOT = Path(__file__).resolve().parents[2]
SECONDS = 120  # before a run counts as hung; the first one imports torch and loads a model
PAGES = {
    name: f"pages/{name}.py"
    for name in ("layers", "pairs", "search", "evaluate", "space", "finetune", "models")
}

# A link with which Space has little to map, and no process to start for it.
FEW = {"s": [f"Heron number {n} waits." for n in range(8)], "projection": "PCA"}
TITLES = {name: name.capitalize() for name in PAGES} | {"finetune": "Fine-tune"}


def settle(app: AppTest, seconds: float = SECONDS) -> AppTest:
    """Wait for the work that was started and run as the page's clock does, until none is new."""
    ended: set = set()
    while started := set(works()) - ended:
        for found in started:
            assert found.wait(seconds)
        ended |= started
        app.run()
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
    """Return the figures of a page by key, with their template filled in and arrays decoded."""
    found = {}
    for element in _charts(app).values():
        figure = found[element.key] = _decoded(json.loads(element.proto.spec))
        style = figure["layout"].get("template", {}).get("layout", {})
        figure["layout"] = style | figure["layout"]
    return found


def trace(app: AppTest, key: str, name: str) -> dict:
    """Return the trace of a figure that has a name."""
    found = [entry for entry in figures(app)[key]["data"] if entry.get("name") == name]
    assert found, [entry.get("name") for entry in figures(app)[key]["data"]]
    return found[0]


def texts_in(figure: dict) -> str:
    """Return everything that a figure says, as one string without line breaks."""
    return re.sub(r"\s*<br>\s*", " ", json.dumps(figure, default=str, ensure_ascii=False))


def is_dark(app: AppTest) -> bool:
    """Return whether the figures are drawn for a dark browser; all of them must agree."""
    texts = [texts_in(figure) for figure in figures(app).values()]
    light, dark = palette_of("light").text, palette_of("dark").text
    found = {(light in text, dark in text) for text in texts}
    assert found in ({(True, False)}, {(False, True)})
    return found == {(False, True)}


def as_file(table: pd.DataFrame, kind: str) -> tuple[str, bytes, str]:
    """Return a table as an upload: name, content, MIME type."""
    if kind == "parquet":
        stream = io.BytesIO()
        table.to_parquet(stream)
        return ("mine.parquet", stream.getvalue(), "application/octet-stream")
    if kind == "jsonl":
        text = table.to_json(orient="records", lines=True, force_ascii=False)
    else:
        text = table.to_csv(index=False, sep="\t" if kind == "tsv" else ",")
    return (f"mine.{kind}", text.encode("utf-8"), "text/plain")


def upload(app: AppTest, key: str, file: tuple[str, bytes, str] | None) -> AppTest:
    """Put a file into an uploader, or take it out again, then run."""
    app.file_uploader(key=key).set_value(file)
    return app.run()


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
