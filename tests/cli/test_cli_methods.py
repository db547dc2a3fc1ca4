"""`kdsearch methods`: the list and the cards agree with the methods themselves."""

from __future__ import annotations

import json
import sys

import pytest

from kdsearch import methods
from kdsearch.cli import main
from kdsearch.cli.methods import describe, legal, searched


def call(monkeypatch: pytest.MonkeyPatch, *arguments: str) -> int:
    monkeypatch.setattr(sys, "argv", ["kdsearch", "methods", *arguments])
    try:
        main()
    except SystemExit as end:
        return int(end.code or 0)
    return 0


def test_the_list_names_every_method(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    assert call(monkeypatch) == 0
    listed = [line.split()[0] for line in capsys.readouterr().out.splitlines()[1:-1]]
    assert listed == methods.names()
    assert {"ips", "lsskd", "kd", "ce"} <= set(listed)


def test_the_json_of_the_list_holds_the_card_of_each(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert call(monkeypatch, "--json") == 0
    cards = json.loads(capsys.readouterr().out)["methods"]
    assert [card["name"] for card in cards] == methods.names()
    assert call(monkeypatch, "ips", "--json") == 0
    assert json.loads(capsys.readouterr().out) == next(card for card in cards if card["name"] == "ips")


def test_a_card_gives_defaults_that_the_method_takes_and_what_the_control_sets_to_0() -> None:
    for name in methods.names():
        method = methods.find(name)
        card = describe(method)
        defaults = {key: entry["default"] for key, entry in card["hyperparameters"].items()}
        assert defaults == method.Hyperparameters().model_dump()
        weights = {key for key, entry in card["hyperparameters"].items() if entry["weight"]}
        assert weights <= set(method.control())
        assert card["citation"] == method.citation


def test_the_card_of_ips_shows_ranges_search_and_sources(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert call(monkeypatch, "ips") == 0
    out = capsys.readouterr().out
    temperature = next(line for line in out.splitlines() if line.startswith("temperature"))
    assert temperature.split()[1:6] == ["4", "(0,", "100]", "1", "to"]
    assert "arXiv 2505.14124" in out
    assert "learning_rate 0.05" in out
    assert out.count("· ") >= len(methods.find("ips").notes)


def test_an_unknown_method_is_one_sentence(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    assert call(monkeypatch, "ipss") == 2
    out, err = capsys.readouterr()
    assert out == ""
    assert err.startswith("error: unknown method 'ipss'; did you mean 'ips'?")


@pytest.mark.parametrize(
    ("entry", "text"),
    [
        ({"minimum": 0, "maximum": 100}, "[0, 100]"),
        ({"exclusiveMinimum": 0, "exclusiveMaximum": 1.5}, "(0, 1.5)"),
        ({"minimum": 0}, "[0, ∞)"),
        ({"exclusiveMaximum": 1}, "(-∞, 1)"),
        ({"enum": ["light", "deep"]}, "light, deep"),
        ({"type": "boolean"}, "on, off"),
        ({"type": "string"}, ""),
    ],
)
def test_legal_values_are_written_as_intervals(entry: dict[str, object], text: str) -> None:
    assert legal(entry) == text


@pytest.mark.parametrize(
    ("entry", "text"),
    [
        (None, ""),
        (4.0, "= 4"),
        ({"choices": [2, 4, "all"]}, "2, 4, all"),
        ({"low": 1.0, "high": 8.0, "log": True}, "1 to 8 log"),
        ({"low": 0.3, "high": 3.0, "log": True, "or_zero": True}, "0.3 to 3 log or 0"),
        ({"low": 0, "high": 1, "step": 0.1}, "0 to 1 step 0.1"),
    ],
)
def test_searched_ranges_are_written_in_words(entry: object, text: str) -> None:
    assert searched(entry) == text
