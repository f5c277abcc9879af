"""The Models page in a browser: a checkpoint downloaded, imported, renamed, used and deleted."""

import zipfile
from pathlib import Path

import pytest
from playwright.sync_api import Page, expect

from tests.browser.serving import OUTPUT, wait_until_drawn

pytestmark = [pytest.mark.browser, pytest.mark.slow]


def settle(page: Page) -> None:
    """Wait for what an action has set off."""
    page.wait_for_timeout(300)
    wait_until_drawn(page)


def press(page: Page, label: str) -> None:
    page.get_by_test_id("stMain").get_by_role("button", name=label, exact=True).click()
    settle(page)


def picked(page: Page) -> str:
    return page.locator(".st-key-model input").input_value()


def test_the_life_of_a_checkpoint(open_app, own_folders, tmp_path):
    page = open_app("/models?checkpoint=lwap-minilm")
    with page.expect_download() as caught:
        press(page, "Download")
    file = tmp_path / caught.value.suggested_filename
    caught.value.save_as(file)
    assert zipfile.ZipFile(file).testzip() is None
    runs = Path(own_folders) / "runs"

    page.get_by_text("Import a model").click()
    page.set_input_files(".st-key-model_import input[type=file]", file)
    page.get_by_label("Name", exact=True).fill("browsed")
    press(page, "Import")
    expect(page.get_by_text("'browsed' is imported and verified.")).to_be_visible()
    assert "checkpoint=browsed" in page.url
    assert (runs / "browsed" / "model" / "lwap.json").is_file()

    press(page, "Verify")
    expect(page.get_by_text("loads, and encodes into 384 dimensions")).to_be_visible()
    press(page, "Use this model")
    assert picked(page) == "browsed"
    other = open_app("/?model=browsed")  # somebody else works with it

    press(page, "Rename")
    page.get_by_label("New name").fill("browsed-v2")
    press(page, "Rename it")
    expect(page.get_by_text("'browsed' is now called 'browsed-v2'.")).to_be_visible()
    assert picked(page) == "browsed-v2"
    assert "model=browsed-v2" in page.url
    page.screenshot(path=OUTPUT / "models-renamed-test.png")

    press(page, "Delete")
    expect(page.get_by_text("there is no way back")).to_be_visible()
    press(page, "Delete for good")
    expect(page.get_by_text("'browsed-v2' is deleted.")).to_be_visible()
    assert not (runs / "browsed-v2").exists()
    sidebar = page.get_by_test_id("stSidebar")
    expect(sidebar).to_contain_text("'browsed-v2' is no longer there")
    assert picked(page) != "browsed-v2" and "browsed" not in page.url

    other.get_by_test_id("stSidebarNav").get_by_role("link", name="Models").click()
    settle(other)
    expect(other.get_by_test_id("stSidebar")).to_contain_text("'browsed' is no longer there")
    expect(other.get_by_test_id("stMain").get_by_test_id("stAlert")).to_have_count(0)
