"""The app in a real browser: one server and one Chromium for all tests of this folder."""

import os
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from urllib.parse import urlsplit

import pytest
from playwright.sync_api import Browser, Page, sync_playwright

from tests.browser.serving import BROWSERS, Server, find_browser, launch, serve, wait_until_drawn


@pytest.fixture(scope="session")
def browser() -> Iterator[Browser]:
    """A Chromium without a window; skips where there is none, fails if it is required."""
    executable = find_browser()
    if executable is None:
        message = f"no browser: none of {', '.join(BROWSERS)} is installed"
        if os.environ.get("LWAP_REQUIRE_BROWSER") == "1":
            pytest.fail(f"{message}, and LWAP_REQUIRE_BROWSER=1", pytrace=False)
        pytest.skip(message)
    with sync_playwright() as playwright:
        found = launch(playwright, executable)
        yield found
        found.close()


@pytest.fixture(scope="session")
def server(browser) -> Iterator[Server]:
    """The app, started once; at the end its log must be clean."""
    with serve() as found:
        yield found
        assert found.complaints() == []


@pytest.fixture
def fresh_server(browser) -> Iterator[Server]:
    """The app, started for this test alone; at the end its log must be clean."""
    with serve() as found:
        yield found
        assert found.complaints() == []


@pytest.fixture
def open_app(browser, server) -> Iterator[Callable[..., Page]]:
    """Return a function that opens an address in a browser context of its own, drawn.

    `open_app("/pairs?scale=Cosine", width=400, theme="dark", at=fresh_server)`. At the end no page
    may have asked another machine for anything, nor written an error to its console.
    """
    found: list[str] = []

    def open_app(
        address: str = "/",
        *,
        width: int = 1440,
        height: int = 900,
        theme: str = "light",
        at: Server = server,
        wait: bool = True,
    ) -> Page:
        context = contexts.enter_context(
            browser.new_context(
                viewport={"width": width, "height": height}, color_scheme=theme, locale="en-GB"
            )
        )
        page = context.new_page()
        watch(page, found)
        page.goto(address if address.startswith("http") else f"{at.url}{address}")
        if wait:
            wait_until_drawn(page)
        return page

    with ExitStack() as contexts:
        yield open_app
    assert found == []


def watch(page: Page, found: list[str]) -> None:
    """Write down what a page must not do."""

    def request(url: str) -> None:
        parts = urlsplit(url)
        if parts.scheme not in ("data", "blob") and parts.hostname != "127.0.0.1":
            found.append(f"asked another machine: {url}")

    def console(message) -> None:
        # The browser asks below a page's own address first, where Streamlit has nothing.
        is_probe = "404" in message.text and "/_stcore/" in message.location.get("url", "")
        if message.type == "error" and not is_probe:
            found.append(f"console: {message.text} {message.location.get('url', '')}")

    page.on("request", lambda asked: request(asked.url))
    page.on("websocket", lambda socket: request(socket.url))
    page.on("console", console)
    page.on("pageerror", lambda error: found.append(f"uncaught: {error}"))
