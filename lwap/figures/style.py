"""Colours and marker symbols: of the themes, strategies, categories, of what grows or differs."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from plotly.colors import get_colorscale, hex_to_rgb, sample_colorscale

from lwap.registry import STRATEGIES

THEMES = ("light", "dark")

ACCENT = {"light": "#0f766e", "dark": "#4fc4b6"}
"""LWAP's own colour; the same as `primaryColor` in the app's theme."""

BACKGROUND = {"light": "#ffffff", "dark": "#12191b"}
"""The page behind the figures; the same as `backgroundColor` in the app's theme."""

CLEAR = "rgba(0, 0, 0, 0)"
"""No colour: of backgrounds, and of marks that only carry a text or a click."""

STATE_COLORSCALE = "Cividis"
"""Sequential scale of everything that grows from zero: even in lightness, colour-blind safe."""


def _colors(text: str) -> tuple[str, ...]:
    return tuple(text.split())


_STOPS = (0.0, 0.25, 0.5, 0.75, 1.0)
DIVERGING = {
    theme: list(map(list, zip(_STOPS, _colors(colors), strict=True)))
    for theme, colors in (
        ("light", "#4a2a86 #9d90c9 #ffffff #f2b063 #a85000"),
        ("dark", "#c3b1ff #6a58ad #12191b #a05f14 #ffbc66"),
    )
}
"""Differences: purple below zero, orange above, the page's background at zero."""


@dataclass(frozen=True)
class Palette:
    """The colours of a theme."""

    theme: str
    background: str
    accent: str
    text: str
    muted: str
    grid: str
    zero: str
    plain: str
    surface: str
    gold: str
    negative: str
    positive: str

    @property
    def band(self) -> str:
        """Colour behind a chosen row."""
        return translucent(self.accent, 0.1 if self.theme == "light" else 0.13)


_COLORS = {
    #           light      dark
    "text": ("#1d2b2e", "#e3eaea"),
    "muted": ("#57676b", "#9fb0b3"),
    "grid": ("#e6ecec", "#273235"),
    "zero": ("#9aa8ab", "#66777b"),  # the line at zero and other lines that must be found
    "plain": ("#71858a", "#8499a0"),  # bars that belong to no strategy
    "surface": ("#ffffff", "#1d282b"),  # behind a hover text
    "gold": ("#000000", "#ffffff"),
    "negative": ("#6a4fa3", "#a08ee0"),
    "positive": ("#c8690f", "#e8a04a"),
}

CATEGORIES = {
    "light": _colors(
        "#003c4b #e1690f #0096ff #a52da5 #1e692d #5a0087 "
        "#695ae1 #691e00 #694b69 #789669 #c378b4 #c3000f"
    ),
    "dark": _colors(
        "#3c5ae1 #f0e100 #c32d00 #4ba5c3 #b4f0ff #964b96 "
        "#b48700 #ff5a96 #4be1a5 #ffa54b #a578ff #c3b4ff"
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
    """Return the colours of a theme; raise ValueError if there is no such theme."""
    if theme not in THEMES:
        raise ValueError(f"theme is {theme!r}; accepted are 'light' and 'dark'")
    colors = {name: pair[THEMES.index(theme)] for name, pair in _COLORS.items()}
    return Palette(theme, BACKGROUND[theme], ACCENT[theme], **colors)


def strategy_color(name: str, theme: str = "light") -> str:
    """Return the fixed colour of a pooling strategy; `X+whiten` has the colour of X.

    A model before the strategy, as in "model · lwap", changes nothing.

    >>> strategy_color("lwap"), strategy_color("mean+whiten") == strategy_color("mean")
    ('#0f766e', True)

    Raises ValueError for a name that is no strategy.
    """
    base, layer = parse_strategy(name)
    if layer is None:
        look = STRATEGIES[base].look
        return look.light if theme == "light" else look.dark
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
    symbols = (STRATEGIES[base].look.symbol,) if layer is None else _LAYER_SYMBOLS[base]
    symbol = symbols[(layer or 0) % len(symbols)]
    return symbol + "-open" if name.endswith(WHITEN) else symbol


def strategy_marker(name: str, palette: Palette, *, size: int) -> dict[str, Any]:
    """Colour and symbol of a strategy, with an edge that parts dots lying on each other."""
    symbol, color = strategy_symbol(name), strategy_color(name, palette.theme)
    edge = dict(color=palette.background, width=1)
    if symbol.endswith("-open"):
        edge = dict(color=color, width=2)
    if symbol.startswith("star"):
        size += 3
    return dict(symbol=symbol, size=size, color=color, line=edge, opacity=1)


def parse_strategy(name: str) -> tuple[str, int | None]:
    """Split a strategy into its base name and, for a single layer, the layer's number."""
    base = name.rpartition(MODEL)[2].removesuffix(WHITEN)
    head, _, layer = base.partition(":")
    entry = STRATEGIES.get(head)
    if entry is not None and entry.is_per_state and layer.isdecimal():
        return head, int(layer)
    if entry is not None and base in STRATEGIES and not entry.is_per_state:
        return base, None
    accepted = ", ".join(
        f"{each.name}:K" if each.is_per_state else each.name for each in STRATEGIES.values()
    )
    raise ValueError(
        f"{name!r} is not a pooling strategy; accepted are {accepted}, each also with '{WHITEN}'"
    )


def has_accent(name: str) -> bool:
    """Say whether a strategy is drawn in the accent colour: the project's own."""
    return strategy_color(name) == ACCENT["light"]


def first_token(name: str) -> str:
    """The strategy whose colour a line of first tokens has; decoders read the last token."""
    return "last_token" if name.replace("_", " ").startswith("last token") else "cls"


def signed_colors(values: np.ndarray, palette: Palette) -> list[str]:
    """The colour of each value's sign."""
    return [palette.negative if value < 0 else palette.positive for value in values]


def translucent(color: str, opacity: float) -> str:
    """The colour with this opacity, for areas through which lines are seen."""
    return f"rgba({', '.join(map(str, hex_to_rgb(color)))}, {opacity})"


def growing_scale(theme: str) -> list[list[Any]]:
    """The sequential scale for marks on the page: the larger, the more a mark stands out."""
    ends = (0.8, 0.0) if theme == "light" else (0.3, 1.0)
    shares = np.linspace(0, 1, 9)
    colors = sample_colorscale(STATE_COLORSCALE, ends[0] + shares * (ends[1] - ends[0]))
    return [list(stop) for stop in zip(shares.tolist(), colors, strict=True)]


def ink(scale: Any, shares: np.ndarray) -> np.ndarray:
    """Black or white, whichever stands out more from these shares of a scale: at least 4.5:1."""
    stops = get_colorscale(scale) if isinstance(scale, str) else scale
    positions = [position for position, _ in stops]
    colors = np.array([hex_to_rgb(color) for _, color in stops]) / 255.0
    shares = np.clip(np.nan_to_num(shares), 0, 1)
    rgb = np.stack([np.interp(shares, positions, channel) for channel in colors.T], axis=-1)
    linear = np.where(rgb <= 0.04045, rgb / 12.92, ((rgb + 0.055) / 1.055) ** 2.4)
    luminance = linear @ [0.2126, 0.7152, 0.0722]  # relative, WCAG 2
    return np.where(luminance < 0.179, "#fff", "#000")
