"""Numbers and sentences as short texts that are safe inside a figure."""

from __future__ import annotations

import html
import math
import unicodedata
from collections.abc import Iterator

import numpy as np

LABEL_COLUMNS = 54  # characters of a sentence on an axis
HOVER_COLUMNS = 42  # characters of a line in a hover text, and of all panels of a grid
PAIR = " ↔ "  # between the sides of a pair's label


def format_number(value: float, form: str, missing: str = "–") -> str:
    """Format a number with a true minus sign; −0.00 is 0.00, a missing number is a dash."""
    if math.isnan(value):
        return missing
    text = format(float(value), form)
    if not text.strip("+-0.,%"):
        text = text.lstrip("+-")
    return text.replace("-", "−")


def format_tiny(value: float, signed: bool) -> str:
    """Print a tiny number with one digit, 0.00006 as 6e-5; 0 stays 0."""
    if not np.isfinite(value):
        return "–"
    if value == 0:
        return "0"
    digits, exponent = f"{value:{'+' if signed else ''}.0e}".split("e")
    return f"{digits.replace('-', '−')}e−{abs(int(exponent))}"


def format_interval(value: float, low: float, high: float, form: str = ".2f") -> str:
    """Print a number in bold with its interval in brackets, if it has one."""
    text = f"<b>{format_number(value, form)}</b>"
    if np.isnan(low) or np.isnan(high):
        return text
    return f"{text} [{format_number(low, form)}, {format_number(high, form)}]"


def colored(text: str, color: str) -> str:
    """Give a safe text a colour of its own."""
    return f'<span style="color:{color}">{text}</span>'


def abbreviate(text: str) -> str:
    """Leave out what says least in a printed share or cosine: 0.14 is .14, and 1.00 is 1."""
    sign = text[:1] if text[:1] in ("+", "−", "±") else ""
    number = text.removeprefix(sign)
    if number.startswith("0."):
        return sign + number[1:]
    return sign + "1" if number.rstrip("0") == "1." else text


def axis_label(text: str) -> str:
    """A sentence or a pair for an axis: shortened and escaped.

    A pair "first ↔ second" is shortened on both sides, each side with its own direction.
    """
    sides = clean(text).split(PAIR)
    if len(sides) != 2:
        return escape(shorten(text, LABEL_COLUMNS))
    room = LABEL_COLUMNS - len(PAIR)
    first, second = map(count_columns, sides)
    left = max(room // 2, room - second)
    right = max(room // 2, room - first)
    return PAIR.join([escape(shorten(sides[0], left)), escape(shorten(sides[1], right))])


def hover_text(text: str, most: int | None = None) -> str:
    """The full text for a hover: wrapped and escaped, the sides of a pair on lines of their own.

    With `most`, a side has no more than so many lines: thousands of texts would weigh much.
    """
    sides = clean(text).split(PAIR)
    if len(sides) == 2:
        sides[1] = PAIR.lstrip() + sides[1]
    else:
        sides = [text]
    return "<br>".join(escape(line) for side in sides for line in wrap(side, HOVER_COLUMNS, most))


def wrap(text: str, columns: int, most: int | None = None) -> list[str]:
    """Break a text into lines of so many columns, the last of `most` lines shortened."""
    lines = [""]
    for word in clean(text).split(" "):
        if lines[-1] and count_columns(lines[-1]) + 1 + count_columns(word) > columns:
            lines.append("")
        elif lines[-1]:
            lines[-1] += " "
        if count_columns(word) <= columns:
            lines[-1] += word
            continue
        for cluster in _clusters(word):
            if count_columns(lines[-1]) + count_columns(cluster) > columns:
                lines.append("")
            lines[-1] += cluster
    if most and len(lines) > most:
        lines = [*lines[: most - 1], _cut(lines[most - 1], columns - 1) + "…"]
    return lines


def shorten(text: str, columns: int) -> str:
    """Cut a text to so many columns, the last one an ellipsis."""
    text = clean(text)
    if count_columns(text) <= columns:
        return text
    return _cut(text, columns - 1) + "…"


def clean(text: str) -> str:
    """Put a text on one line, without control characters or broken surrogates."""
    text = text.encode("utf-8", "replace").decode("utf-8")
    if not text.isprintable():
        text = "".join(" " if unicodedata.category(c) == "Cc" else c for c in text)
    return " ".join(text.split()) or "(empty)"


def escape(text: str) -> str:
    """Make a text safe for plotly's HTML subset and for MathJax, and keep its direction.

    Quotes stay: plotly does not decode them, and without "<" they open nothing. A text with
    right-to-left letters is isolated, so that its ellipsis and full stop stay at its own end.
    """
    escaped = html.escape(text, quote=False).replace("$", "&#36;")
    if text.isascii():
        return escaped
    if any(unicodedata.bidirectional(character) in ("R", "AL") for character in text):
        return f"\u2068{escaped}\u2069"
    return escaped


def _cut(text: str, columns: int) -> str:
    """The beginning of a text, at most so many columns wide."""
    kept, used = "", 0
    for cluster in _clusters(text):
        used += count_columns(cluster)
        if used > columns:
            break
        kept += cluster
    return kept.rstrip()


def count_columns(text: str) -> int:
    """Width of a text in columns: East Asian characters and emoji take two."""
    if text.isascii():
        return len(text)
    return sum(
        2 if unicodedata.east_asian_width(c[0]) in "WF" or ord(c[0]) >= 0x1F000 else 1
        for c in _clusters(text)
    )


def _clusters(text: str) -> Iterator[str]:
    """Split a text into what a reader sees as one character, so that cuts keep emoji whole."""
    cluster = ""
    for character in text:
        code = ord(character)
        joins = (
            unicodedata.category(character) in ("Mn", "Me", "Mc")
            or character == "\u200d"  # zero-width joiner
            or cluster.endswith("\u200d")
            or 0x1F3FB <= code <= 0x1F3FF  # skin tones
            or 0xE0020 <= code <= 0xE007F  # tags in flags
            or (_is_flag_letter(character) and len(cluster) == 1 and _is_flag_letter(cluster))
        )
        if cluster and not joins:
            yield cluster
            cluster = ""
        cluster += character
    if cluster:
        yield cluster


def _is_flag_letter(character: str) -> bool:
    return 0x1F1E6 <= ord(character) <= 0x1F1FF
