"""The Space page in a browser: lasso and click, both maps linked, a file, the walk, two people."""

import csv
from collections.abc import Callable

import pytest
from playwright.sync_api import Page, expect

from tests.browser.serving import OUTPUT, ROOT, wait_until_drawn

pytestmark = [pytest.mark.browser, pytest.mark.slow]

MAP_SECONDS = 90_000  # ms; the first map of a server loads a model, UMAP imports and compiles
SIDES = ("space-map-a", "space-map-b")


# --- reading and doing --------------------------------------------------------------------------


def settle(page: Page) -> None:
    """Wait for what an action has set off."""
    page.wait_for_timeout(300)
    wait_until_drawn(page)


def traces(page: Page, key: str) -> dict[str, dict]:
    """Return places and rows of the traces of a figure by name, as Plotly holds them."""
    found = page.evaluate(
        """(key) => {
            const chart = document.querySelector(`.st-key-${key} .js-plotly-plot`);
            return chart._fullData.map(({name, x, y, customdata}) => ({
                name, x: Array.from(x || []), y: Array.from(y || []),
                rows: Array.from(customdata || [], (row) => row[0] ?? row["0"]),
            }));
        }""",
        key,
    )
    return {trace["name"]: trace for trace in found}


def pixel(page: Page, key: str, x: float, y: float) -> tuple[float, float]:
    """Return where on the screen a place of a map is."""
    place = page.evaluate(
        """([key, x, y]) => {
            const chart = document.querySelector(`.st-key-${key} .js-plotly-plot`);
            const {xaxis, yaxis} = chart._fullLayout;
            const box = chart.getBoundingClientRect();
            return [box.x + xaxis._offset + xaxis.d2p(x), box.y + yaxis._offset + yaxis.d2p(y)];
        }""",
        [key, x, y],
    )
    return place[0], place[1]


def draw_lasso(page: Page, key: str, share: float) -> None:
    """Drag around the middle of a map."""
    page.get_by_role("heading", name="Space", level=1).scroll_into_view_if_needed()
    page.wait_for_timeout(300)
    box = page.locator(f".st-key-{key} .nsewdrag").first.bounding_box()
    low, high = (1 - share) / 2, (1 + share) / 2
    corners = [(low, low), (high, low), (high, high), (low, high), (low, low + 0.02)]
    places = [(box["x"] + box["width"] * x, box["y"] + box["height"] * y) for x, y in corners]
    page.mouse.move(*places[0])
    page.mouse.down()
    for place in places[1:]:
        page.mouse.move(*place, steps=6)
    page.mouse.up()
    page.wait_for_timeout(500)  # an earlier selection may still be listed
    page.get_by_text("sentences selected").wait_for()
    settle(page)


@pytest.fixture
def open_space(open_app) -> Callable[..., Page]:
    """Return a function that opens the page and waits for both maps; measuring takes a thread."""

    def open_space(link: str = "projection=PCA", **options) -> Page:
        page = open_app(f"/space?{link}", **options)
        for key in SIDES:
            page.locator(f".st-key-{key} .main-svg").first.wait_for(timeout=MAP_SECONDS)
        settle(page)
        return page

    return open_space


def show(page: Page, name: str) -> None:
    OUTPUT.mkdir(exist_ok=True)
    page.screenshot(path=OUTPUT / f"{name}-test.png")


# --- the page -----------------------------------------------------------------------------------


@pytest.mark.parametrize("theme", ["light", "dark"])
def test_it_is_drawn_without_a_click(open_space, theme):
    page = open_space("projection=PCA", theme=theme)
    expect(page.get_by_role("heading", name="Space", level=1)).to_be_visible()
    for key in SIDES:
        drawn = traces(page, key)
        assert sum(len(trace["rows"]) for trace in drawn.values()) == 612
        assert "astronomy" in drawn
    first = page.locator(".st-key-space-map-a .js-plotly-plot .main-svg").first
    assert first.bounding_box()["y"] < 450
    show(page, f"space-{theme}")


def test_umap_comes_by_itself(open_space):
    page = open_space("")
    page.get_by_text("UMAP, keeps").first.wait_for(timeout=MAP_SECONDS)
    settle(page)
    assert page.get_by_text("UMAP, keeps").count() == 2
    expect(page.get_by_test_id("stMain")).to_contain_text("In a UMAP map only nearness means")


def test_a_lasso_in_one_map_marks_and_lists_the_same_in_the_other(open_space):
    page = open_space("projection=PCA&mouse=Lasso")
    draw_lasso(page, SIDES[0], 0.4)
    marked = [sorted(traces(page, key)["selected"]["rows"]) for key in SIDES]
    assert marked[0] == marked[1]
    assert 3 < len(marked[0]) < 612
    expect(page.get_by_test_id("stMain")).to_contain_text(f"{len(marked[0])} sentences selected")
    with page.expect_download() as download:
        page.get_by_role("button", name="Download (CSV)").click()
    with open(download.value.path(), encoding="utf-8") as stream:
        listed = [row["sentence"] for row in csv.DictReader(stream)]
    with (ROOT / "assets/sentences.csv").open(encoding="utf-8") as stream:
        sentences = [row["sentence"] for row in csv.DictReader(stream)]
    assert listed == [sentences[row] for row in marked[0]]
    draw_lasso(page, SIDES[1], 0.2)  # the other one decides now
    again = [sorted(traces(page, key)["selected"]["rows"]) for key in SIDES]
    assert again[0] == again[1] != marked[0]
    page.locator(".st-key-space_clear button").click()
    settle(page)
    assert "selected" not in traces(page, SIDES[0])


def test_a_selection_goes_to_the_other_pages(open_space):
    page = open_space("projection=PCA&mouse=Lasso")
    draw_lasso(page, SIDES[0], 0.2)
    count = len(traces(page, SIDES[0])["selected"]["rows"])
    page.locator(".st-key-to_search button").click()
    expect(page.get_by_role("heading", name="Search", level=1)).to_be_visible()
    settle(page)
    expect(page.get_by_test_id("stMain")).to_contain_text(f"your own, {count}")


def test_a_click_lists_the_neighbours_of_both_spaces(open_space):
    page = open_space("projection=PCA")
    trace = traces(page, SIDES[0])["astronomy"]
    # The outermost of its topic, which no other point covers.
    place = max(range(len(trace["x"])), key=lambda i: trace["y"][i] - trace["x"][i])
    x, y = pixel(page, SIDES[0], trace["x"][place], trace["y"][place])
    page.mouse.move(x - 4, y - 4)
    page.mouse.move(x, y)
    page.wait_for_timeout(300)
    page.mouse.click(x, y)
    page.get_by_text("nearest neighbours in the full space").last.wait_for()
    settle(page)
    focus = [traces(page, key)["focus"]["rows"] for key in SIDES]
    assert focus[0] == focus[1] == [trace["rows"][place]]
    assert len(traces(page, SIDES[1])["neighbour rings"]["rows"]) == 10


def test_a_file_is_mapped_and_the_link_keeps_the_view(open_space, tmp_path):
    file = tmp_path / "mine.csv"
    rows = [(f"Sentence {n} is about {'birds' if n % 2 else 'boats'}.", n % 2) for n in range(40)]
    with file.open("w", newline="", encoding="utf-8") as stream:
        csv.writer(stream).writerows([("sentence", "kind"), *rows])
    page = open_space("projection=PCA&space_view=What+changed")
    page.get_by_text("Sentences: the example").click()
    page.get_by_role("radio", name="File").click()
    page.set_input_files(".st-key-space_upload input[type=file]", file)
    page.get_by_text("Sentences: mine.csv, 40").wait_for()
    settle(page)
    assert sum(len(trace["rows"]) for trace in traces(page, SIDES[0]).values()) == 40
    assert "space_view=What+changed" in page.url and "projection=PCA" in page.url
    expect(page.get_by_test_id("stMain")).to_contain_text("10 nearest neighbours are the same")


def test_the_walk_moves_the_points(open_space):
    page = open_space("projection=PCA&space_view=Walk+through+the+layers")
    page.locator(".st-key-space-walk .main-svg").first.wait_for()
    settle(page)
    before = traces(page, "space-walk")["law"]
    page.locator(".st-key-space-walk").get_by_text("Play").click()
    page.wait_for_timeout(3000)
    after = traces(page, "space-walk")["law"]
    assert before["rows"] == after["rows"]
    moved = [abs(a - b) for a, b in zip(before["x"], after["x"], strict=True)]
    assert sum(moved) / len(moved) > 0.01


def test_two_people_do_not_disturb_each_other(open_space):
    first = open_space("projection=PCA&mouse=Lasso")
    second = open_space("projection=PCA&mouse=Lasso")
    draw_lasso(first, SIDES[0], 0.3)
    settle(second)
    assert "selected" in traces(first, SIDES[0])
    assert "selected" not in traces(second, SIDES[0])
    expect(second.get_by_text("sentences selected")).to_have_count(0)


@pytest.mark.parametrize("theme", ["light", "dark"])
def test_a_phone_shows_the_maps_one_below_the_other(open_space, theme):
    page = open_space("projection=PCA", theme=theme, width=400, height=800)
    boxes = [page.locator(f".st-key-{key} .js-plotly-plot").bounding_box() for key in SIDES]
    assert boxes[0]["y"] + boxes[0]["height"] <= boxes[1]["y"]
    main = page.get_by_test_id("stMain")
    assert main.evaluate("main => main.scrollWidth <= main.clientWidth + 1")
    show(page, f"space-narrow-{theme}")
