"""What only a browser shows: pictures, clicks, uploads, links, colours, widths, requests."""

import json
import re
from urllib.parse import urlencode

import pandas as pd
import pytest
from playwright.sync_api import Page, expect

from tests.browser.serving import (
    ADDRESSES,
    OUTPUT,
    TITLES,
    WITHOUT_FIGURE,
    wait_until_drawn,
)

pytestmark = [pytest.mark.browser, pytest.mark.slow]

DARK, LIGHT = "rgb(18, 25, 27)", "rgb(255, 255, 255)"  # backgrounds of .streamlit/config.toml
SENTENCES = ["A heron waits in the reeds.", "The heron has flown away.", "Nobody saw it."]
PAIRS = [
    ["A heron waits.", "A heron is waiting.", 5.0],
    ["A heron waits.", "A heron flies.", 2.0],
    ["The river is high.", "The river rose.", 4.0],
    ["It rains.", "It does not rain.", 0.5],
]


# --- reading and doing --------------------------------------------------------------------------


def data_of(page: Page, key: str) -> list[dict]:
    """Return the traces of a figure as Plotly holds them."""
    return page.evaluate(
        """(key) => {
            const chart = document.querySelector(`.st-key-${key} .js-plotly-plot`);
            const plain = (value) => value && value.length !== undefined
                && typeof value !== "string" ? Array.from(value, plain) : value;
            return chart._fullData.map(
                ({type, name, x, y, z, text}) =>
                    ({type, name, x: plain(x), y: plain(y), z: plain(z), text: plain(text)}));
        }""",
        key,
    )


def heatmap(page: Page, key: str) -> list[list[float]]:
    return next(trace["z"] for trace in data_of(page, key) if trace["type"] == "heatmap")


def settle(page: Page) -> None:
    """Wait for what an action has set off."""
    page.wait_for_timeout(300)
    wait_until_drawn(page)


def press(page: Page, key: str, label: str) -> None:
    """Press one button of a row of buttons."""
    page.locator(f".st-key-{key}").get_by_text(label, exact=True).click()
    settle(page)


def choose(page: Page, key: str, text: str) -> None:
    """Type into a menu and take what it offers."""
    box = page.locator(f".st-key-{key} input")
    box.scroll_into_view_if_needed()
    page.wait_for_timeout(300)  # scrolling closes a menu
    now = box.input_value()
    if now and text.startswith(now):  # Streamlit takes what is chosen away from its start
        box.click()
        page.get_by_role("option", name=text, exact=True).click()
        settle(page)
        return
    box.fill(text)
    page.get_by_role("option").first.wait_for()
    page.keyboard.press("Enter")
    settle(page)


def type_sentences(page: Page, sentences: list[str]) -> None:
    page.locator(".st-key-layers_text textarea").fill("\n".join(sentences))
    page.keyboard.press("Control+Enter")
    settle(page)


def click_dot(page: Page, strategy: str, row: int) -> None:
    """Click the dot of a strategy in a row of the overview."""
    names = [trace["name"] for trace in data_of(page, "pair-scores")]
    traces = page.locator(".st-key-pair-scores .scatterlayer .trace")
    dot = traces.nth(names.index(strategy)).locator(".points path").nth(row)
    dot.scroll_into_view_if_needed()
    box = dot.bounding_box()
    x, y = box["x"] + box["width"] / 2, box["y"] + box["height"] / 2
    page.mouse.move(x - 3, y)  # Plotly clicks what the mouse has come to, as a hand does
    page.mouse.move(x, y)
    page.wait_for_timeout(200)
    page.mouse.click(x, y)
    settle(page)


def pair_of(page: Page) -> str:
    return page.locator(".st-key-pair input").input_value()


def upload(page: Page, tmp_path, name: str, content: str) -> None:
    file = tmp_path / name
    file.write_text(content, "utf-8")
    page.set_input_files(".st-key-pairs_upload input[type=file]", file)
    expect(page.locator(".st-key-pairs_upload")).to_contain_text(name)
    settle(page)


def go_to(page: Page, title: str) -> None:
    """Go to another page through the navigation."""
    page.get_by_test_id("stSidebarNav").get_by_role("link", name=title).click()
    expect(page.get_by_role("heading", name=title, level=1)).to_be_visible()
    settle(page)


def as_link(pairs: list[list]) -> str:
    return "/pairs?" + urlencode({"p": [json.dumps(pair) for pair in pairs]}, doseq=True)


# --- pictures -----------------------------------------------------------------------------------


@pytest.mark.parametrize("page_name", list(ADDRESSES))
@pytest.mark.parametrize("theme", ["light", "dark"])
def test_a_page_is_drawn_without_a_click(open_app, page_name, theme):
    page = open_app(ADDRESSES[page_name], theme=theme)
    OUTPUT.mkdir(exist_ok=True)
    page.screenshot(path=OUTPUT / f"{page_name}-{theme}-test.png")
    expect(page.get_by_role("heading", name=TITLES[page_name], level=1)).to_be_visible()
    background = page.evaluate(
        "getComputedStyle(document.querySelector('[data-testid=\"stApp\"]')).backgroundColor"
    )
    assert background == (DARK if theme == "dark" else LIGHT)
    if page_name == "evaluate":  # its figures are drawn anew when the thread is done
        grid = page.locator(".st-key-strategy-grid")
        expect(grid).to_contain_text("layer_mean:6", timeout=60_000)
        expect(grid).to_contain_text("average")
    first = page.locator(WITHOUT_FIGURE.get(page_name, ".js-plotly-plot .main-svg")).first
    assert first.bounding_box()["y"] < 900  # above the fold
    if page_name == "layers":
        picture = page.locator(".st-key-attention .heatmaplayer image")
        assert picture.count() == 1
        assert picture.get_attribute("href").startswith("data:image/png")
    elif page_name == "pairs":
        assert page.locator(".st-key-pair-scores .points path").count() >= 15 * 5
    elif page_name == "search":
        assert page.locator(".st-key-rank-changes .main-svg").count() >= 1
        expect(page.locator(".st-key-rank-changes")).to_contain_text("I can log in")
    elif page_name == "space":
        assert page.locator(".st-key-space-map-a .points path").count() == 612


@pytest.mark.parametrize("page_name", list(ADDRESSES))
def test_nothing_is_wider_than_a_phone(open_app, page_name):
    page = open_app(ADDRESSES[page_name], width=400, height=800)
    OUTPUT.mkdir(exist_ok=True)
    page.screenshot(path=OUTPUT / f"{page_name}-phone-test.png", full_page=True)
    assert page.evaluate("document.scrollingElement.scrollWidth") <= 400
    main = page.get_by_test_id("stMain")
    assert main.evaluate("main => main.scrollWidth") <= 400
    # Only what scrolls by itself (the table) may hold something that is wider.
    wide = main.evaluate(
        """main => [...main.querySelectorAll("*")].filter((element) => {
            if (element.getBoundingClientRect().right <= 401) return false;
            for (let up = element; up !== main; up = up.parentElement) {
                if (getComputedStyle(up).overflowX !== "visible") return false;
            }
            return true;
        }).map((element) => element.className.toString().slice(0, 80))"""
    )
    assert wide == []


def test_a_dark_page_has_dark_figures(open_app):
    colors = [
        open_app("/", theme=theme).evaluate(
            """() => document.querySelector(".st-key-attention .js-plotly-plot")
                ._fullLayout.font.color"""
        )
        for theme in ("light", "dark")
    ]
    assert colors[0] != colors[1]


# --- layers -------------------------------------------------------------------------------------


def test_typed_sentences_become_rows(open_app):
    page = open_app("/")
    before = heatmap(page, "sentence-weights")
    type_sentences(page, SENTENCES)
    after = heatmap(page, "sentence-weights")
    assert (len(before), len(after)) == (5, 3)
    assert after != before[:3]
    for row in after:
        assert sum(row) == pytest.approx(1, abs=1e-5)


def test_every_view_is_drawn(open_app):
    page = open_app("/")
    for view, key in (
        ("Side by side", "attention-grid"),
        ("Difference", "attention-difference"),
        ("One sentence", "attention"),
    ):
        press(page, "view", view)
        images = page.locator(f".st-key-{key} .heatmaplayer image")
        assert images.count() == (5 if key == "attention-grid" else 1)
        page.screenshot(path=OUTPUT / f"layers-{key}-test.png")


def test_another_model_keeps_the_sentences_and_changes_the_picture(open_app):
    page = open_app("/?model=lwap-minilm-paper")
    type_sentences(page, SENTENCES)
    before = heatmap(page, "attention")
    choose(page, "model", "lwap-minilm-residual")
    assert page.locator(".st-key-layers_text textarea").input_value() == "\n".join(SENTENCES)
    assert heatmap(page, "attention") != before
    assert "model=lwap-minilm-residual" in page.url


def test_an_unknown_model_is_a_message_not_a_crash(open_app):
    page = open_app("/?model=nobody/no-such-model")
    alert = page.get_by_test_id("stAlert").first
    expect(alert).to_contain_text("'nobody/no-such-model' is not on this machine")
    expect(page.get_by_test_id("stException")).to_have_count(0)
    choose(page, "model", "lwap-minilm-paper")
    assert len(heatmap(page, "attention")) == 7


def test_the_link_opens_the_same_layers(open_app):
    page = open_app("/?model=lwap-minilm-paper")
    type_sentences(page, SENTENCES)
    choose(page, "sentence", "2.")
    press(page, "view", "Difference")
    choose(page, "from", "3.")
    for part in ("s=A+heron", "view=Difference", "from=3"):
        assert part in page.url
    again = open_app(page.url)
    for key in ("attention-difference", "sentence-weights"):
        assert heatmap(again, key) == heatmap(page, key)
    assert again.locator(".st-key-from input").input_value().startswith("3.")


# --- pairs --------------------------------------------------------------------------------------


def test_a_click_on_a_dot_shows_its_pair(open_app):
    page = open_app("/pairs", height=1300)
    seen = {pair_of(page)}
    curves = [data_of(page, "layer-similarity")]
    for strategy, row in (("cls", 3), ("mean", 6), ("cls", 3)):
        click_dot(page, strategy, row)
        label = next(t for t in data_of(page, "pair-scores") if t["name"] == strategy)["text"][row]
        first_words = label.replace("<br>", " ").split()[:3]
        assert " ".join(first_words) in pair_of(page)
        seen.add(pair_of(page))
        curves.append(data_of(page, "layer-similarity"))
    assert len(seen) == 3
    assert curves[0] != curves[1] != curves[2]
    assert curves[1] == curves[3]
    page.screenshot(path=OUTPUT / "pairs-clicked-test.png")


def test_a_dot_can_be_clicked_again_after_the_menu(open_app):
    page = open_app("/pairs", height=1300)
    click_dot(page, "mean", 4)
    clicked = pair_of(page)
    other = "1." if not clicked.startswith("1.") else "2."
    choose(page, "pair", other)
    assert pair_of(page).startswith(other)
    click_dot(page, "mean", 4)
    assert pair_of(page) == clicked


def test_an_uploaded_file_is_scored(open_app, tmp_path):
    page = open_app("/pairs")
    rows = pd.DataFrame(PAIRS, columns=["sentence1", "sentence2", "score"])
    upload(page, tmp_path, "mine.csv", rows.to_csv(index=False))
    assert len(heatmap(page, "pair-heatmap")) == len(PAIRS)
    labels = " ".join(
        text for trace in data_of(page, "pair-scores") for text in trace["text"] or []
    )
    assert "A heron is" in labels.replace("<br>", " ")
    assert page.locator(".st-key-spearman .js-plotly-plot").count() == 1
    page.screenshot(path=OUTPUT / "pairs-uploaded-test.png")


def test_a_wrong_file_is_a_message_and_the_table_stays(open_app, tmp_path):
    page = open_app("/pairs")
    upload(page, tmp_path, "wrong.csv", "a,b\n1,2\n")
    expect(page.get_by_test_id("stAlert").first).to_contain_text("has no column 'sentence1'")
    assert len(heatmap(page, "pair-heatmap")) == 15


def test_an_edited_cell_is_scored(open_app):
    page = open_app(as_link(PAIRS))
    table = page.locator("[class*=st-key-pairs_editor] canvas").first
    box = table.bounding_box()
    page.mouse.click(box["x"] + 120, box["y"] + 52)  # the first cell under the header
    page.wait_for_timeout(300)
    page.keyboard.press("Enter")
    page.locator("textarea.gdg-input").fill("Typed into the table.")
    page.wait_for_timeout(300)
    page.keyboard.press("Enter")
    expect(page).to_have_url(re.compile("Typed"))
    settle(page)
    texts = " ".join(t for e in data_of(page, "pair-scores") for t in e["text"] or [])
    assert "Typed into the table." in texts.replace("<br>", " ")


def test_the_link_opens_the_same_pairs(open_app):
    page = open_app(as_link(PAIRS))
    press(page, "scale", "Cosine")
    choose(page, "pair", "2.")
    choose(page, "model", "lwap-minilm-residual")
    for part in ("scale=Cosine", "pair=2", "model=lwap-minilm-residual", "p=%5B"):
        assert part in page.url
    again = open_app(page.url)
    for key in ("pair-scores", "layer-similarity", "pair-knockout", "pair-heatmap"):
        assert data_of(again, key) == data_of(page, key)
    assert pair_of(again) == pair_of(page)


def test_the_scores_can_be_downloaded(open_app):
    page = open_app(as_link(PAIRS))
    page.get_by_role("tab", name="Table and download").click()
    with page.expect_download() as caught:
        page.get_by_role("button", name="All scores (CSV)").click()
    assert caught.value.suggested_filename == "lwap-pairs.csv"
    table = pd.read_csv(caught.value.path())
    assert table[["sentence1", "sentence2", "score"]].to_numpy().tolist() == PAIRS
    assert table["mean"].between(-1, 1).all()


# --- the whole ----------------------------------------------------------------------------------


@pytest.mark.parametrize("page_name", list(ADDRESSES))
def test_the_first_request_may_be_for_any_page(fresh_server, open_app, page_name):
    """A fresh server has not yet seen app.py; the page must still come with its frame."""
    page = open_app(ADDRESSES[page_name], at=fresh_server)
    expect(page.get_by_role("heading", name=TITLES[page_name], level=1)).to_be_visible()
    expect(page.get_by_test_id("stSidebar").get_by_label("Model").first).to_be_visible()
    expect(page.get_by_test_id("stSidebarNav")).to_contain_text("Layers")
    expect(page.get_by_test_id("stSidebarNav")).not_to_contain_text("app")
    expect(page.get_by_test_id("stSidebar")).to_contain_text("states of")
    # Evaluate's figures come when its thread is done; Models has one figure.
    last = page.locator(".js-plotly-plot").nth(0 if page_name == "models" else 1)
    if page_name in WITHOUT_FIGURE:
        last = page.locator(WITHOUT_FIGURE[page_name])
    expect(last).to_be_visible(timeout=60_000)


def test_the_other_page_and_back_keeps_text_and_model(open_app):
    page = open_app("/")
    choose(page, "model", "lwap-minilm-residual")
    type_sentences(page, SENTENCES)
    go_to(page, "Pairs")
    assert page.locator(".st-key-model input").input_value() == "lwap-minilm-residual"
    go_to(page, "Layers")
    assert page.locator(".st-key-layers_text textarea").input_value() == "\n".join(SENTENCES)
    assert page.locator(".st-key-model input").input_value() == "lwap-minilm-residual"
    assert len(heatmap(page, "sentence-weights")) == 3
    assert "s=A+heron" in page.url


def test_the_link_of_the_second_page_holds_the_model(open_app):
    page = open_app("/")
    choose(page, "model", "lwap-minilm-residual")
    go_to(page, "Pairs")
    again = open_app(page.url)
    assert again.locator(".st-key-model input").input_value() == "lwap-minilm-residual"


def test_two_people_at_once_do_not_meet(open_app):
    first = open_app("/?s=One+person+asks+this.&s=And+this.", wait=False)
    second = open_app("/?s=Another+asks+that.&s=And+that.&s=And+more.", wait=False)
    wait_until_drawn(first)
    wait_until_drawn(second)
    assert len(heatmap(first, "sentence-weights")) == 2
    assert len(heatmap(second, "sentence-weights")) == 3
    alone = open_app("/?s=One+person+asks+this.&s=And+this.")
    assert heatmap(alone, "attention") == heatmap(first, "attention")
