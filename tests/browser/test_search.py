"""The Search page in a browser: a query typed, a result clicked, a file uploaded, links, widths."""

import json
from pathlib import Path

import pandas as pd
import pytest
from playwright.sync_api import Page, expect

from tests.browser.serving import OUTPUT, ROOT, wait_until_drawn

pytestmark = [pytest.mark.browser, pytest.mark.slow]

COLLECTION = json.loads((ROOT / "assets/collection.json").read_text("utf-8"))
SENTENCES = [
    "A heron waits in the reeds.",
    "The crane lifts a steel beam.",
    "Nobody swims in the river.",
    "The bank raised its interest rates.",
    "The bank of the river is steep.",
    "A crane wades through the marsh.",
]


# --- reading and doing --------------------------------------------------------------------------


def settle(page: Page) -> None:
    """Wait for what an action has set off."""
    page.wait_for_timeout(300)
    wait_until_drawn(page)


def traces(page: Page, key: str) -> dict[str, dict]:
    """Return the traces of a figure by name, as Plotly holds them."""
    found = page.evaluate(
        """(key) => {
            const chart = document.querySelector(`.st-key-${key} .js-plotly-plot`);
            const plain = (value) => value && value.length !== undefined
                && typeof value !== "string" ? Array.from(value, plain) : value;
            return chart._fullData.map(({name, x, y, z, text, customdata}) =>
                ({name, x: plain(x), y: plain(y), z: plain(z), text: plain(text),
                  customdata: plain(customdata)}));
        }""",
        key,
    )
    return {trace["name"]: trace for trace in found}


def lists(page: Page) -> list[list[int]]:
    """Return the rows of the sentences in both lists."""
    drawn = traces(page, "rank-changes")
    return [[row for (row,) in drawn[f"{side} list"]["customdata"]] for side in ("first", "second")]


def ask(page: Page, query: str) -> None:
    box = page.locator(".st-key-search_query input")
    box.fill(query)
    box.press("Enter")
    settle(page)


def choose(page: Page, key: str, text: str) -> None:
    """Type into a menu and take what it offers."""
    box = page.locator(f".st-key-{key} input")
    box.scroll_into_view_if_needed()
    page.wait_for_timeout(300)  # scrolling closes a menu
    box.fill(text)
    page.get_by_role("option").first.wait_for()
    page.keyboard.press("Enter")
    settle(page)


def open_sentences(page: Page) -> None:
    page.get_by_text("Sentences to search in").click()
    expect(page.locator(".st-key-search_text textarea")).to_be_visible()


def type_sentences(page: Page, sentences: list[str]) -> None:
    page.locator(".st-key-search_text textarea").fill("\n".join(sentences))
    page.keyboard.press("Control+Enter")
    settle(page)


def upload(page: Page, file: Path) -> None:
    page.set_input_files(".st-key-search_upload input[type=file]", file)
    expect(page.locator(".st-key-search_upload")).to_contain_text(file.name)
    settle(page)


def click_result(page: Page, side: str, place: int) -> None:
    """Click the text of a result."""
    names = list(traces(page, "rank-changes"))
    texts = [name for name in names if name.endswith(" texts")].index(f"{side} texts")
    layer = page.locator(".st-key-rank-changes .scatterlayer .trace:has(.textpoint)").nth(texts)
    text = layer.locator(".textpoint").nth(place)
    text.scroll_into_view_if_needed()
    box = text.bounding_box()
    x, y = box["x"] + 40, box["y"] + box["height"] / 2
    page.mouse.move(x - 5, y)  # Plotly clicks what the mouse has come to, as a hand does
    page.mouse.move(x, y)
    page.wait_for_timeout(200)
    page.mouse.click(x, y)
    settle(page)


def result_of(page: Page) -> str:
    return page.locator(".st-key-result input").input_value()


# --- the page -----------------------------------------------------------------------------------


@pytest.mark.parametrize("theme", ["light", "dark"])
def test_it_is_drawn_without_a_click(open_app, theme):
    page = open_app("/search", theme=theme)
    OUTPUT.mkdir(exist_ok=True)
    page.screenshot(path=OUTPUT / f"search-{theme}-test.png")
    expect(page.get_by_role("heading", name="Search", level=1)).to_be_visible()
    first = page.locator(".st-key-rank-changes .js-plotly-plot .main-svg").first
    assert first.bounding_box()["y"] < 600  # its first results are above the fold
    assert [len(ranking) for ranking in lists(page)] == [10, 10]
    assert len(traces(page, "attention")["layer attention"]["z"]) == 7
    expect(page.get_by_test_id("stMain")).to_contain_text(COLLECTION["queries"][0]["look_for"])


def test_the_first_request_of_a_fresh_server_may_be_for_this_page(fresh_server, open_app):
    page = open_app("/search?q=Where+is+my+parcel%3F&results=5", at=fresh_server)
    expect(page.get_by_role("heading", name="Search", level=1)).to_be_visible()
    expect(page.get_by_test_id("stSidebar").get_by_label("Model").first).to_be_visible()
    expect(page.get_by_test_id("stSidebarNav")).to_contain_text("Layers")
    expect(page.locator(".st-key-search_query input")).to_have_value("Where is my parcel?")
    assert [len(ranking) for ranking in lists(page)] == [5, 5]


def test_a_typed_query_and_an_example_are_searched(open_app):
    page = open_app("/search")
    before, attention = lists(page), traces(page, "attention")["layer attention"]["z"]
    ask(page, "Where is my parcel?")
    assert lists(page) != before
    assert traces(page, "attention")["layer attention"]["z"] != attention
    assert "q=Where+is+my+parcel" in page.url
    found = [COLLECTION["sentences"][row] for row in lists(page)[0]]
    assert "My parcel has not arrived yet." in found[:3]
    choose(page, "search_example", "Snow closed")
    expect(page.locator(".st-key-search_query input")).to_have_value(
        "Snow closed the mountain pass."
    )
    expect(page.get_by_test_id("stMain")).to_contain_text("Look for the road that drifts")
    # The menu's own cross takes the choice back and leaves the query alone.
    page.locator(".st-key-search_example").get_by_role("button", name="Clear").click()
    settle(page)
    expect(page.locator(".st-key-search_query input")).to_have_value(
        "Snow closed the mountain pass."
    )


def test_a_clicked_result_is_shown_layer_by_layer(open_app):
    page = open_app("/search", height=1300)
    rows = lists(page)
    curves, weights = [], []
    for side, place in (("second", 2), ("first", 4), ("second", 9), ("first", 4)):
        click_result(page, side, place)
        row = rows[side == "second"][place]
        assert result_of(page) == COLLECTION["sentences"][row]
        assert f"result={row + 1}" in page.url
        curves.append(traces(page, "layer-similarity")["mean"]["y"])
        weights.append(traces(page, "pair-weights"))
        expect(page.get_by_test_id("stMain")).to_contain_text("of 162, cosine 0.")
    assert curves[1] == curves[3] != curves[2] != curves[0]
    assert weights[1] == weights[3] != weights[2]
    assert page.locator(".st-key-pair-knockout .js-plotly-plot").count() == 1
    page.screenshot(path=OUTPUT / "search-clicked-test.png")


def test_own_sentences_are_searched_and_the_box_stays_open(open_app):
    page = open_app("/search")
    open_sentences(page)
    type_sentences(page, [*SENTENCES, SENTENCES[0]])
    expect(page.get_by_text("Sentences to search in: your own, 7")).to_be_visible()
    expect(page.locator(".st-key-search_text textarea")).to_be_visible()
    expect(page.get_by_test_id("stMain")).to_contain_text("6 of the 7 are ranked")
    ask(page, "a bird at the water")
    assert sorted(lists(page)[0]) == list(range(6))
    assert SENTENCES[lists(page)[0][0]] in (SENTENCES[0], SENTENCES[5])


def test_an_uploaded_file_is_searched(open_app, tmp_path):
    page = open_app("/search")
    open_sentences(page)
    file = tmp_path / "mine.csv"
    file.write_text(pd.DataFrame({"sentence": SENTENCES}).to_csv(index=False), "utf-8")
    upload(page, file)
    expect(page.locator(".st-key-search_text textarea")).to_have_value("\n".join(SENTENCES))
    assert [sorted(ranking) for ranking in lists(page)] == [list(range(6))] * 2
    page.screenshot(path=OUTPUT / "search-uploaded-test.png")


def test_a_wrong_file_is_a_message_and_the_text_stays(open_app, tmp_path):
    page = open_app("/search")
    before = lists(page)
    open_sentences(page)
    file = tmp_path / "wrong.csv"
    file.write_text("a,b\n1,2\n", "utf-8")
    upload(page, file)
    expect(page.get_by_test_id("stAlert").first).to_contain_text("has no column 'sentence'")
    assert lists(page) == before


def test_the_link_opens_the_same(open_app):
    page = open_app("/search")
    open_sentences(page)
    type_sentences(page, SENTENCES)
    ask(page, "a bird at the water")
    choose(page, "second_strategy", "embed_last_mean")
    slider = page.locator(".st-key-results").get_by_role("slider")
    slider.focus()
    for _ in range(5):
        page.keyboard.press("ArrowLeft")
    settle(page)
    click_result(page, "second", 2)
    for part in ("q=a+bird", "c=A+heron", "second_strategy=embed_last_mean", "results=5"):
        assert part in page.url
    assert "first_strategy" not in page.url
    again = open_app(page.url)
    assert lists(again) == lists(page)
    assert result_of(again) == result_of(page)
    for key in ("rank-changes", "layer-similarity", "pair-weights", "attention"):
        assert traces(again, key) == traces(page, key)


def test_another_model_and_another_page_keep_what_was_typed(open_app):
    page = open_app("/search?model=lwap-minilm-residual")
    ask(page, "a bird at the water")
    before = lists(page)
    choose(page, "model", "all-MiniLM-L6-v2")
    expect(page.locator(".st-key-first_strategy")).to_contain_text("First list")
    assert page.locator(".st-key-first_strategy input").input_value() == "mean"
    expect(page.get_by_test_id("stMain")).to_contain_text("no trained layer attention")
    choose(page, "model", "lwap-minilm-residual")
    assert lists(page) == before
    for title in ("Pairs", "Search"):
        page.get_by_test_id("stSidebarNav").get_by_role("link", name=title).click()
        expect(page.get_by_role("heading", name=title, level=1)).to_be_visible()
        settle(page)
    expect(page.locator(".st-key-search_query input")).to_have_value("a bird at the water")
    assert lists(page) == before


def test_all_ranks_can_be_downloaded(open_app):
    page = open_app("/search")
    page.get_by_text("Table and download").click()
    with page.expect_download() as caught:
        page.get_by_role("button", name="All ranks and scores (CSV)").click()
    assert caught.value.suggested_filename == "lwap-search.csv"
    table = pd.read_csv(caught.value.path())
    assert sorted(table["sentence"]) == sorted(COLLECTION["sentences"])
    first, second = lists(page)
    at = table.set_index("sentence")
    ranked = [COLLECTION["sentences"][row] for row in first]
    assert at.loc[ranked, "lwap rank"].tolist() == list(range(1, 11))
    ranked = [COLLECTION["sentences"][row] for row in second]
    assert at.loc[ranked, "cls rank"].tolist() == list(range(1, 11))


def test_nothing_is_wider_than_a_phone(open_app):
    page = open_app("/search", width=400, height=800)
    page.screenshot(path=OUTPUT / "search-phone-test.png", full_page=True)
    open_sentences(page)
    assert page.evaluate("document.scrollingElement.scrollWidth") <= 400
    main = page.get_by_test_id("stMain")
    assert main.evaluate("main => main.scrollWidth") <= 400
