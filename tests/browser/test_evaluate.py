"""The Evaluate page in a browser: clicks on points and cells, an upload, the report offline."""

import pandas as pd
import pytest
from playwright.sync_api import Page, expect

from tests.browser.serving import OUTPUT, PAGE_SECONDS, wait_until_drawn
from tests.browser.test_app import data_of, go_to, press, settle

pytestmark = [pytest.mark.browser, pytest.mark.slow]

MODEL = "model=lwap-minilm-residual"
GRID, SCATTER = ".st-key-strategy-grid", "[class*=st-key-gold-scatter]"
VIEWS = {
    "Layer curve": "layer-curve-0",
    "Alignment and uniformity": "alignment-uniformity-0",
    "Errors": "layer-similarity",
    "Slices": "slices",
    "Differences": "differences",
}


@pytest.fixture
def open_evaluated(open_app):
    """Return a function that opens the page and waits for the result."""

    def open_evaluated(link: str = "", **options) -> Page:
        page = open_app(f"/evaluate?{MODEL}{link}", **options)
        return wait_for_result(page)

    return open_evaluated


def wait_for_result(page: Page) -> Page:
    page.locator(f"{GRID} .main-svg").first.wait_for(timeout=PAGE_SECONDS * 1000)
    wait_until_drawn(page)
    return page


def click_at(page: Page, mark) -> None:
    """Click a mark of a figure; Plotly clicks what the mouse has come to, as a hand does."""
    mark.scroll_into_view_if_needed()
    box = mark.bounding_box()
    x, y = box["x"] + box["width"] / 2, box["y"] + box["height"] / 2
    page.mouse.move(x - 3, y)
    page.mouse.move(x, y)
    page.wait_for_timeout(300)
    page.mouse.click(x, y)
    settle(page)


def customdata(page: Page, figure: str, trace: int = 0) -> list[list]:
    return page.evaluate(
        """([figure, trace]) => Array.from(
            document.querySelector(`${figure} .js-plotly-plot`)._fullData[trace].customdata,
            (place) => Array.from(place))""",
        [figure, trace],
    )


def rows_of_table(page: Page) -> list[list[str]]:
    """Return the texts of the table of pairs, which has a twin for screen readers."""
    rows = page.locator("[class*=st-key-evaluate_table] canvas tbody tr")
    rows.first.wait_for(state="attached")
    return [row.locator("td").all_inner_texts() for row in rows.all()]


def pair_shown(page: Page) -> str:
    """Return the paragraph of the pair that is drawn layer by layer."""
    return page.get_by_test_id("stMarkdown").filter(has_text="rank difference").inner_text()


def value_of(page: Page, key: str) -> str:
    return page.locator(f".st-key-{key} input").input_value()


def upload(page: Page, tmp_path, name: str, table: pd.DataFrame) -> None:
    file = tmp_path / name
    table.to_csv(file, index=False)
    page.set_input_files(".st-key-evaluate_upload input[type=file]", file)
    expect(page.locator(".st-key-evaluate_upload")).to_contain_text(name)
    settle(page)


def picture(page: Page, name: str) -> None:
    OUTPUT.mkdir(exist_ok=True)
    page.screenshot(path=OUTPUT / f"evaluate-{name}-test.png")


def sample(count: int = 24) -> pd.DataFrame:
    columns = {
        "sentence1": [f"A heron waits for {row} fish." for row in range(count)],
        "sentence2": [
            f"{'The bird' if row % 2 else 'A train'} waits{' no longer' * (row % 3)} at {row}."
            for row in range(count)
        ],
        "score": [(3 * (row % 2) + row % 3) for row in range(count)],
    }
    return pd.DataFrame(columns)


# --- the sample ---------------------------------------------------------------------------------


def test_the_sample_is_evaluated_without_a_click(open_evaluated):
    page = open_evaluated()
    numbers = [
        text for trace in data_of(page, "strategy-grid") for text in trace["text"] or [] if text
    ]
    assert len(numbers) == 9 * (9 + 2 * 7)  # strategies and layers, times phenomena and average
    assert page.locator(".st-key-evaluate_stop").count() == 0
    picture(page, "sample")


@pytest.mark.parametrize("theme", ["light", "dark"])
def test_every_view_is_drawn(open_evaluated, theme):
    page = open_evaluated(theme=theme, height=1600)
    for view, key in VIEWS.items():
        press(page, "evaluate_view", view)
        expect(page.locator(f".st-key-{key} .js-plotly-plot")).to_have_count(1)
        assert any(trace["x"] for trace in data_of(page, key))
        expect(page.get_by_test_id("stException")).to_have_count(0)
        picture(page, f"{key}-{theme}")


def test_a_click_on_a_cell_is_followed_in_errors(open_evaluated):
    page = open_evaluated("&evaluate_view=Errors", height=1600)
    cells = customdata(page, GRID)
    rows = page.evaluate(
        "document.querySelector('.st-key-strategy-grid .js-plotly-plot').layout.yaxis.ticktext"
    )
    mean, numbers = rows.index("mean"), 5
    bars = page.locator(f"{GRID} .barlayer .trace").first.locator(".points path")
    click_at(page, bars.nth(cells.index([mean, numbers])))
    assert value_of(page, "evaluate_strategy") == "mean"
    assert value_of(page, "evaluate_task") == "Numbers"
    assert "Cosine, mean" in page.locator(f"{SCATTER} .ytitle").text_content()


# --- errors -------------------------------------------------------------------------------------


def test_a_click_on_a_point_shows_its_pair_in_the_table_and_below(open_evaluated):
    page = open_evaluated("&evaluate_view=Errors", height=1600)
    assert len(rows_of_table(page)) > 1
    curves, seen = [data_of(page, "layer-similarity")], set()
    for place in (110, 40, 75):
        labels = page.evaluate(
            "figure => Array.from(document.querySelector(`${figure} .js-plotly-plot`)"
            "._fullData[0].hovertext)",
            SCATTER,
        )
        points = page.locator(f"{SCATTER} .scatterlayer .trace").first.locator(".points path")
        click_at(page, points.nth(place))
        (row,) = rows_of_table(page)
        first, second = row[-4], row[-3]
        hovered = labels[place].replace("<br>", " ")
        assert " ".join(first.split()[:3]) in hovered
        assert f"{first} ↔ {second}" in pair_shown(page)
        seen.add((first, second))
        curves.append(data_of(page, "layer-similarity"))
    assert len(seen) == 3
    assert curves[0] != curves[1] != curves[2] != curves[3]
    picture(page, "clicked")
    page.get_by_role("button", name="All pairs").click()
    settle(page)
    assert len(rows_of_table(page)) > 3


def test_a_lasso_chooses_the_pairs_inside(open_evaluated):
    page = open_evaluated("&evaluate_view=Errors", height=1600)
    plot = page.locator(f"{SCATTER} .js-plotly-plot")
    plot.scroll_into_view_if_needed()
    plot.hover()
    plot.locator('.modebar-btn[data-val="lasso"]').click()
    box = plot.locator(".nsewdrag").first.bounding_box()

    def move(across: float, down: float) -> None:
        x, y = box["x"] + across * box["width"], box["y"] + down * box["height"]
        page.mouse.move(x, y, steps=8)

    move(0.3, 0.01)
    page.mouse.down()
    for corner in ((0.6, 0.01), (0.6, 0.4), (0.3, 0.4), (0.3, 0.01)):
        move(*corner)
    page.mouse.up()
    settle(page)
    caption = page.get_by_test_id("stCaptionContainer").filter(has_text="that you chose")
    count = int(caption.inner_text().split()[1])
    assert 5 < count < 100
    chosen = page.evaluate(
        "figure => document.querySelector(`${figure} .js-plotly-plot`)._fullData[1].x.length",
        SCATTER,
    )
    assert chosen == count


def test_a_chosen_row_is_the_pair_below(open_evaluated):
    page = open_evaluated("&evaluate_view=Errors", height=1600)
    rows = rows_of_table(page)
    canvas = page.locator("[class*=st-key-evaluate_table] canvas").first
    canvas.scroll_into_view_if_needed()
    box = canvas.bounding_box()
    page.mouse.click(box["x"] + 18, box["y"] + 35 * 3 + 17)  # the box before the third row
    settle(page)
    assert f"{rows[2][-4]} ↔ {rows[2][-3]}" in pair_shown(page)


# --- own files, other pages, the report ---------------------------------------------------------


def test_an_uploaded_file_is_evaluated_at_a_press(open_evaluated, tmp_path):
    page = open_evaluated()
    press(page, "data", "Your file")
    expect(page.get_by_test_id("stAlert").first).to_contain_text("There is no file yet")
    upload(page, tmp_path, "mine.csv", sample())
    expect(page.get_by_test_id("stMain")).to_contain_text("Below is the result of an earlier")
    page.get_by_role("button", name="Evaluate (24 pairs)").click()
    expect(page.locator(f"{GRID} .xtick text")).to_have_text(["mine.csv"], timeout=60_000)
    settle(page)
    expect(page.get_by_role("button", name="Evaluate (24 pairs)")).to_have_count(0)
    picture(page, "uploaded")
    go_to(page, "Pairs")
    go_to(page, "Evaluate")
    wait_for_result(page)
    expect(page.locator(f"{GRID} .xtick text")).to_have_text(["mine.csv"])


def test_a_wrong_file_is_a_message(open_evaluated, tmp_path):
    page = open_evaluated()
    press(page, "data", "Your file")
    upload(page, tmp_path, "wrong.csv", sample().drop(columns="score"))
    expect(page.get_by_test_id("stAlert").first).to_contain_text("has no column 'score'")
    expect(page.get_by_test_id("stException")).to_have_count(0)


def test_the_link_opens_the_same_view(open_evaluated):
    page = open_evaluated()
    press(page, "evaluate_view", "Differences")
    assert "evaluate_view=Differences" in page.url
    again = wait_for_result(open_evaluated(f"&{page.url.split('?')[1]}"))
    assert data_of(again, "differences") == data_of(page, "differences")


def test_the_report_is_drawn_offline(open_evaluated, browser, tmp_path):
    page = open_evaluated("&evaluate_view=Alignment+and+uniformity")
    page.get_by_text("Table and downloads").click()
    button = page.get_by_role("button", name="Report (HTML)")
    button.scroll_into_view_if_needed()
    with page.expect_download() as caught:
        button.click()
    assert caught.value.suggested_filename == "lwap-report.html"
    file = tmp_path / "report.html"
    caught.value.save_as(file)
    context = browser.new_context(offline=True, viewport={"width": 1200, "height": 900})
    found: list[str] = []

    def note(message) -> None:
        if message.type in ("error", "warning"):
            found.append(message.text)

    report = context.new_page()
    report.on("console", note)
    report.on("pageerror", lambda error: found.append(str(error)))
    report.on("request", lambda asked: found.append(asked.url))
    report.goto(file.as_uri())
    report.wait_for_function(
        """() => {
            const charts = [...document.querySelectorAll(".js-plotly-plot")];
            return charts.length === 4 && charts.every((chart) => chart.querySelector(".main-svg"));
        }"""
    )
    grid = report.locator(".js-plotly-plot").first
    assert grid.locator(".barlayer .points path").count() > 100
    assert "layer_mean:3" in grid.locator(".ytick").all_text_contents()
    expect(report.locator("h2").first).to_have_text("Strategies and layers on every task")
    assert "lwap-minilm-residual on Negation" in report.title()
    OUTPUT.mkdir(exist_ok=True)
    report.screenshot(path=OUTPUT / "evaluate-report-test.png", full_page=True)
    assert report.evaluate("document.scrollingElement.scrollWidth") <= 1200
    context.close()
    assert found == [file.as_uri()]
