"""Colours and marker symbols: of the themes, strategies, categories, of what grows or differs."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from plotly.colors import get_colorscale, hex_to_rgb, sample_colorscale

ACCENT = {"light": "#0f766e", "dark": "#4fc4b6"}
"""LWAP's own colour; the same as `primaryColor` in the app's theme."""

BACKGROUND = {"light": "#ffffff", "dark": "#12191b"}
"""The page behind the figures; the same as `backgroundColor` in the app's theme."""

CLEAR = "rgba(0, 0, 0, 0)"
"""No colour: of backgrounds, and of marks that only carry a text or a click."""

STATE_COLORSCALE = "Cividis"
"""Sequential scale of everything that grows from zero: even in lightness, colour-blind safe."""

DIVERGING = {
    "light": (
        (0.0, "#4a2a86"),
        (0.25, "#9d90c9"),
        (0.5, BACKGROUND["light"]),
        (0.75, "#f2b063"),
        (1.0, "#a85000"),
    ),
    "dark": (
        (0.0, "#c3b1ff"),
        (0.25, "#6a58ad"),
        (0.5, BACKGROUND["dark"]),
        (0.75, "#a05f14"),
        (1.0, "#ffbc66"),
    ),
}
"""Differences: purple below zero, orange above, the page's background at zero."""


@dataclass(frozen=True)
class Palette:
    background: str
    text: str
    muted: str
    grid: str
    zero: str  # the line at zero and other lines that must be found
    plain: str  # bars that belong to no strategy
    band: str  # behind a selected row
    surface: str  # behind a hover text
    gold: str
    negative: str
    positive: str


_PALETTES = {
    "light": Palette(
        background=BACKGROUND["light"],
        text="#1d2b2e",
        muted="#57676b",
        grid="#e6ecec",
        zero="#9aa8ab",
        plain="#71858a",
        band="rgba(15, 118, 110, 0.10)",
        surface="#ffffff",
        gold="#000000",
        negative="#6a4fa3",
        positive="#c8690f",
    ),
    "dark": Palette(
        background=BACKGROUND["dark"],
        text="#e3eaea",
        muted="#9fb0b3",
        grid="#273235",
        zero="#66777b",
        plain="#8499a0",
        band="rgba(79, 196, 182, 0.13)",
        surface="#1d282b",
        gold="#ffffff",
        negative="#a08ee0",
        positive="#e8a04a",
    ),
}

# Chosen together with the accent so that any two stay apart for normal, deuteranopic,
# protanopic and tritanopic eyes, with a contrast of 3:1 or more on the page behind them.
_STRATEGIES = {
    #                   light      dark       symbol
    "cls": ("#1f3bb3", "#729afb", "circle"),
    "mean": ("#db640e", "#ed905e", "square"),
    "max": ("#72130b", "#e2390d", "triangle-up"),
    "last_token": ("#6b45d7", "#d5b2fe", "triangle-down"),
    "first_last_mean": ("#c547a3", "#c35483", "diamond"),
    "embed_last_mean": ("#581f68", "#8b5cee", "pentagon"),
    "last_two_mean": ("#795616", "#f1dbba", "hexagon"),
    "all_mean": ("#1690ed", "#298bb7", "cross"),
    "scalar_mix": ("#869270", "#edc812", "x"),
    "lwap": (ACCENT["light"], ACCENT["dark"], "star"),
}

CATEGORIES = {
    "light": (
        "#003c4b",
        "#e1690f",
        "#0096ff",
        "#a52da5",
        "#1e692d",
        "#5a0087",
        "#695ae1",
        "#691e00",
        "#694b69",
        "#789669",
        "#c378b4",
        "#c3000f",
    ),
    "dark": (
        "#3c5ae1",
        "#f0e100",
        "#c32d00",
        "#4ba5c3",
        "#b4f0ff",
        "#964b96",
        "#b48700",
        "#ff5a96",
        "#4be1a5",
        "#ffa54b",
        "#a578ff",
        "#c3b4ff",
    ),
}
"""Colours of categories that have no colour of their own, such as topics.

Searched for with the same aims as the strategies' colours; the first few are furthest apart, and
so are two that share a symbol.
"""

CATEGORY_SYMBOLS = ("circle", "square", "diamond", "triangle-up", "cross", "x")
"""Marker symbols of categories, the second channel: colour k has symbol k modulo their number."""

WHITEN = "+whiten"
MODEL = " · "  # between a model and its strategy, where several models are compared

# One layer alone is context, not a contender: greys, with K told by shade and symbol.
_LAYER_GREYS = {
    "light": ("#3f4749", "#8a9396", "#5c6669", "#767f82"),
    "dark": ("#c9d2d4", "#737d80", "#a9b3b6", "#8d979a"),
}
_LAYER_SYMBOLS = {
    "layer_mean": ("hourglass", "diamond-wide", "star-square"),
    "layer_cls": ("bowtie", "diamond-tall", "star-diamond"),
}


def palette_of(theme: str) -> Palette:
    if theme not in _PALETTES:
        raise ValueError(f"theme is {theme!r}; accepted are 'light' and 'dark'")
    return _PALETTES[theme]


def strategy_color(name: str, theme: str = "light") -> str:
    """Return the fixed colour of a pooling strategy; `X+whiten` has the colour of X.

    A model before the strategy, as in "model · lwap", changes nothing.

    >>> strategy_color("lwap"), strategy_color("mean+whiten") == strategy_color("mean")
    ('#0f766e', True)

    Raises ValueError for a name that is no strategy and for an unknown theme.
    """
    palette_of(theme)
    base, layer = parse_strategy(name)
    if layer is None:
        return _STRATEGIES[base][0 if theme == "light" else 1]
    greys = _LAYER_GREYS[theme]
    return greys[layer % len(greys)]


def strategy_symbol(name: str) -> str:
    """Return the fixed marker symbol of a pooling strategy; open for `X+whiten`.

    The second channel beside the colour: no two of the named strategies share a symbol.

    >>> strategy_symbol("mean"), strategy_symbol("mean+whiten")
    ('square', 'square-open')

    Raises ValueError for a name that is no strategy.
    """
    base, layer = parse_strategy(name)
    if layer is None:
        symbol = _STRATEGIES[base][2]
    else:
        symbols = _LAYER_SYMBOLS[base]
        symbol = symbols[layer % len(symbols)]
    return symbol + "-open" if name.endswith(WHITEN) else symbol


def strategy_marker(name: str, theme: str, *, size: int) -> dict[str, Any]:
    """Colour and symbol of a strategy, with an edge that parts dots lying on each other."""
    symbol, color = strategy_symbol(name), strategy_color(name, theme)
    edge = dict(color=BACKGROUND[theme], width=1)
    if symbol.endswith("-open"):
        edge = dict(color=color, width=2)
    if symbol.startswith("star"):
        size += 3
    return dict(symbol=symbol, size=size, color=color, line=edge, opacity=1)


def parse_strategy(name: str) -> tuple[str, int | None]:
    """Split a strategy into its base name and, for a single layer, the layer's number."""
    base = name.rpartition(MODEL)[2].removesuffix(WHITEN)
    if base in _STRATEGIES:
        return base, None
    head, _, layer = base.partition(":")
    if head in _LAYER_SYMBOLS and layer.isdecimal():
        return head, int(layer)
    accepted = ", ".join([*_STRATEGIES, "layer_mean:K", "layer_cls:K"])
    raise ValueError(
        f"{name!r} is not a pooling strategy; accepted are {accepted}, each also with '{WHITEN}'"
    )


def first_token(name: str) -> str:
    """The strategy whose colour a line of first tokens has; decoders read the last token."""
    return "last_token" if name.replace("_", " ").startswith("last token") else "cls"


def signed_colors(values: np.ndarray, palette: Palette) -> list[str]:
    return [palette.negative if value < 0 else palette.positive for value in values]


def translucent(color: str, opacity: float) -> str:
    """The colour with this opacity, for areas through which lines are seen."""
    red, green, blue = (int(color[i : i + 2], 16) for i in (1, 3, 5))
    return f"rgba({red}, {green}, {blue}, {opacity})"


def growing_scale(theme: str) -> list[list[Any]]:
    """The sequential scale for marks on the page: the larger, the more a mark stands out."""
    ends = (0.8, 0.0) if theme == "light" else (0.3, 1.0)
    shares = np.linspace(0, 1, 9)
    colors = sample_colorscale(STATE_COLORSCALE, ends[0] + shares * (ends[1] - ends[0]))
    return [[share, color] for share, color in zip(shares.tolist(), colors, strict=True)]


def ink(scale: Any, shares: np.ndarray) -> np.ndarray:
    """Black or white, whichever stands out more from these shares of a scale: at least 4.5:1."""
    return np.where(_luminance(scale, shares) < 0.179, "#fff", "#000")


def _luminance(scale: Any, shares: np.ndarray) -> np.ndarray:
    """Relative luminance (WCAG 2) of the colours at these shares of a colour scale."""
    stops = get_colorscale(scale) if isinstance(scale, str) else scale
    positions = [position for position, _ in stops]
    colors = np.array([hex_to_rgb(color) for _, color in stops]) / 255.0
    shares = np.clip(np.nan_to_num(shares), 0, 1)
    rgb = np.stack([np.interp(shares, positions, channel) for channel in colors.T], axis=-1)
    linear = np.where(rgb <= 0.04045, rgb / 12.92, ((rgb + 0.055) / 1.055) ** 2.4)
    return linear @ [0.2126, 0.7152, 0.0722]
