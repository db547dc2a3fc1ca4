"""Drawings as SVG text: small pure functions, everything that comes from outside is escaped.

A drawing is 360 units wide, the width of a phone, and grows with the page. Colours and strokes are classes of the
page's style sheet; what they mean is told by shape, dash or label too.
"""

from __future__ import annotations

import html
import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

WIDTH = 360
LONGEST = 40
"""Characters of a label that fit."""

Point = tuple[float, float]


@dataclass(frozen=True)
class Scale:
    """Values onto a stretch of the drawing."""

    low: float
    high: float
    start: float
    end: float

    def __call__(self, value: float) -> float:
        share = (value - self.low) / (self.high - self.low) if self.high > self.low else 0.5
        return self.start + share * (self.end - self.start)

    @property
    def described(self) -> str:
        """`low high start end`, with which one reads a drawing's places back into values."""
        return f"{self.low!r} {self.high!r} {_number(self.start)} {_number(self.end)}"

    def ticks(self, count: int = 4) -> list[float]:
        """Round values between low and high, about `count`."""
        if not self.high > self.low:
            return [self.low]
        rough = (self.high - self.low) / count
        power = 10.0 ** math.floor(math.log10(rough))
        step = next(factor * power for factor in (1, 2, 5, 10) if factor * power >= rough * 0.999)
        first, last = math.ceil(self.low / step - 1e-9), math.floor(self.high / step + 1e-9)
        return [round(place * step, 12) for place in range(first, last + 1)]


def span(values: Sequence[float]) -> tuple[float, float]:
    """The ends of a scale for these values: theirs with a little room, or a little around a single one."""
    low, high = min(values), max(values)
    room = 0.04 * (high - low) or 0.02 * abs(high) or 1.0
    return low - room, high + room


def drawing(
    height: float, parts: Iterable[str], *, label: str, across: Scale | None = None, up: Scale | None = None
) -> str:
    """The whole drawing; `label` says in words what it shows."""
    scales = "".join(f' data-{name}="{scale.described}"' for name, scale in (("across", across), ("up", up)) if scale)
    return (
        f'<svg viewBox="0 0 {WIDTH} {_number(height)}" role="img" aria-label="{escape(label)}"{scales}>'
        f"<title>{escape(label)}</title>{''.join(parts)}</svg>"
    )


def text(x: float, y: float, content: str, style: str = "", *, anchor: str = "start", longest: int = LONGEST) -> str:
    """A line of text; a long one is cut, and whole in its tooltip."""
    short = content if len(content) <= longest else content[: longest - 1] + "…"
    tooltip = f"<title>{escape(content)}</title>" if short != content else ""
    return (
        f'<text x="{_number(x)}" y="{_number(y)}" text-anchor="{anchor}"{_class(style)}>{escape(short)}{tooltip}</text>'
    )


def line(start: Point, end: Point, style: str) -> str:
    """A straight line."""
    return polyline([start, end], style)


def polyline(points: Sequence[Point], style: str) -> str:
    """Straight lines from point to point."""
    return polylines([points], style)


def polylines(many: Iterable[Sequence[Point]], style: str) -> str:
    """Many of them as one element."""
    paths = ["M" + "L".join(f"{_number(x)} {_number(y)}" for x, y in points) for points in many if points]
    return f'<path d="{"".join(paths)}"{_class("line " + style)}/>' if paths else ""


def dots(points: Iterable[Point], style: str) -> str:
    """A mark at every point; its shape and size are the style's (the cap of a line without length)."""
    path = "".join(f"M{_number(x)} {_number(y)}h0" for x, y in points)
    return f'<path d="{path}"{_class("dots " + style)}/>' if path else ""


def ring(center: Point, style: str) -> str:
    """A circle around a point, on a white one that sets it off from what lies below."""
    place = f'cx="{_number(center[0])}" cy="{_number(center[1])}" r="6"'
    return f'<circle {place} class="around"/><circle {place}{_class(style)}/>'


def box(left: float, top: float, width: float, height: float, style: str) -> str:
    """A filled rectangle."""
    place = f'x="{_number(left)}" y="{_number(top)}"'
    return f'<rect {place} width="{_number(max(width, 0))}" height="{_number(max(height, 0))}"{_class(style)}/>'


def escape(content: object) -> str:
    """Text that is text wherever it stands, in an attribute too; control characters become visible signs."""
    shown = "".join(
        letter if letter.isprintable() or letter in "\n\t" else "\N{REPLACEMENT CHARACTER}" for letter in str(content)
    )
    return html.escape(shown, quote=True)


def value_label(value: float) -> str:
    """A value beside an axis."""
    return f"{value:,.0f}" if value == int(value) and abs(value) < 1e7 else f"{value:.4g}"


def _class(style: str) -> str:
    return f' class="{style.strip()}"' if style.strip() else ""


def _number(value: float) -> str:
    return f"{value:.1f}".removesuffix(".0")
