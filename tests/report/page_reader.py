"""Reads a report back: its data, its tables and what its drawings say."""

from __future__ import annotations

import json
import re
from dataclasses import dataclass, field
from html.parser import HTMLParser
from typing import Any

import numpy as np

VOID = {"meta", "link", "br", "wbr", "hr", "img", "input"}


@dataclass
class Node:
    """An element with its attributes, the text directly in it, and its children."""

    tag: str
    attributes: dict[str, str | None] = field(default_factory=dict)
    parts: list[Node | str] = field(default_factory=list)

    @property
    def text(self) -> str:
        return "".join(part if isinstance(part, str) else part.text for part in self.parts)

    def find(self, tag: str = "", **attributes: str) -> list[Node]:
        """All elements below with this tag, whose attributes contain these words."""
        found = []
        for child in self.parts:
            if isinstance(child, Node):
                words = {name: (child.attributes.get(name) or "").split() for name in attributes}
                if child.tag == (tag or child.tag) and all(attributes[name] in words[name] for name in attributes):
                    found.append(child)
                found += child.find(tag, **attributes)
        return found


class _Reader(HTMLParser):
    def __init__(self) -> None:
        super().__init__(convert_charrefs=True)
        self.root = Node("document")
        self._open = [self.root]

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        node = Node(tag, {name.replace("-", "_"): value for name, value in attrs})
        self._open[-1].parts.append(node)
        if tag not in VOID:
            self._open.append(node)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self._open[-1].parts.append(Node(tag, {name.replace("-", "_"): value for name, value in attrs}))

    def handle_endtag(self, tag: str) -> None:
        assert self._open[-1].tag == tag, f"</{tag}> closes <{self._open[-1].tag}>"
        self._open.pop()

    def handle_data(self, data: str) -> None:
        self._open[-1].parts.append(data)


class Page:
    """A parsed report; parsing fails where a tag is not closed in its place."""

    def __init__(self, html: str) -> None:
        reader = _Reader()
        reader.feed(html)
        reader.close()
        assert reader._open == [reader.root], "a tag is not closed"
        self.root = reader.root

    @property
    def data(self) -> dict[str, Any]:
        """The JSON in the page."""
        (block,) = self.root.find("script")
        assert block.attributes == {"type": "application/json", "id": "report-data"}
        document: dict[str, Any] = json.loads(block.text)
        return document

    def table(self, label: str) -> list[list[str]]:
        """The rows of a table, its head first where it has one."""
        (table,) = [node for node in self.root.find("table") if node.attributes["aria_label"] == label]
        return [[cell.text for cell in row.parts if isinstance(cell, Node)] for row in table.find("tr")]

    def section(self, title: str) -> Node:
        (found,) = [node for node in self.root.find("section") if node.find("h2")[0].text == title]
        return found

    def drawing(self, *words: str) -> Node:
        """The drawing whose description contains these words."""
        labels = {node.attributes.get("aria_label") or "": node for node in self.root.find("svg", role="img")}
        found = [node for label, node in labels.items() if all(word in label for word in words)]
        assert len(found) == 1, f"{len(found)} drawings with {words} among {list(labels)}"
        return found[0]


def places(drawing: Node, style: str) -> list[tuple[float, float]]:
    """The marks of a style, or the corners of its lines, read back into values by the drawing's own scales."""
    scales = [_scale(str(drawing.attributes[f"data_{name}"])) for name in ("across", "up")]
    found = []
    for path in drawing.find("path", **{"class": style}):
        for x, y in re.findall(r"[ML]([\d.-]+) ([\d.-]+)", str(path.attributes["d"])):
            found.append((_value(scales[0], float(x)), _value(scales[1], float(y))))
    return found


def _scale(described: str) -> np.ndarray:
    return np.asarray([float(part) for part in described.split()])


def _value(scale: np.ndarray, place: float) -> float:
    low, high, start, end = scale
    return float(low + (place - start) / (end - start) * (high - low))
