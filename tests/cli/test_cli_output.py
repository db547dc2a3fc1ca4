"""How numbers, settings and tables look."""

from __future__ import annotations

import pytest

from kdsearch.cli.output import Column, Row, duration, gain, number, safe, score, setting, values, wrapped
from kdsearch.cli.table import lay_out


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (None, "–"), (0, "0.0 s"), (-3, "0.0 s"), (0.84, "0.8 s"), (9.94, "9.9 s"), (9.96, "10 s"), (59.4, "59 s"),
        (59.6, "1 m 00 s"), (72, "1 m 12 s"), (3599.7, "1 h 00 m"), (7500, "2 h 05 m"), (86_399.9, "1 d 0 h"),
        (273_600, "3 d 4 h"),
    ],
)  # fmt: skip
def test_durations_are_read_at_a_glance(seconds: float | None, text: str) -> None:
    assert duration(seconds) == text


@pytest.mark.parametrize(
    ("value", "text"), [(None, "–"), (0.95555, "0.9556"), (1.0, "1.0000"), (-0.5, "-0.5000"), (25.789, "25.79")]
)
def test_scores_have_four_digits_and_decibels_two(value: float | None, text: str) -> None:
    assert score(value) == text


def test_gains_carry_their_sign() -> None:
    assert [gain(0.0123), gain(-0.0123), gain(0.0), gain(12.345), gain(None)] == [
        "+0.0123", "-0.0123", "+0.0000", "+12.35", "–",
    ]  # fmt: skip


def test_a_setting_is_compact_and_in_the_asked_order() -> None:
    given = {"temperature": 4.0, "alpha": 0.90001, "weight_decay": 5e-05, "detach": True, "heads": "1,3", "patches": 4}
    assert setting(given, ["alpha", "temperature", "unknown"]) == "alpha 0.9 · temperature 4"
    assert setting(given).endswith("weight_decay 5e-05 · detach on · heads 1,3 · patches 4")
    assert values({}) == {}
    assert number(1_000_000) == "1000000"


def test_control_characters_are_shown_and_never_obeyed() -> None:
    assert safe("a\x1b[2Jb\tc\nd\u202e") == "a\\x1b[2Jb\\tc\\nd\\u202e"
    assert safe("α · 中 é") == "α · 中 é"


def test_wrapping_keeps_long_words_whole() -> None:
    assert wrapped("a path/that/is/very/long b", 10) == ["a", "path/that/is/very/long", "b"]


COLUMNS = [Column("trial"), Column("score", right=True), Column("time", right=True, spare=2)]
ROWS = [
    Row(["0 paper", "0.5", "9 s"], "bold", {"alpha": "0.25", "learning_rate": "0.1"}),
    Row(["11", "0.75", "10 s"], "", {"alpha": "1", "weight_decay": "0"}),
]


def lines(room: int, *, stacked: bool = False) -> list[str]:
    return [line.rstrip() for line, _ in lay_out(COLUMNS, ROWS, "", room, stacked=stacked)]


def test_where_there_is_room_every_value_has_its_column() -> None:
    assert lines(100) == [
        "trial    score  time  alpha  learning_rate  weight_decay",
        "0 paper    0.5   9 s   0.25            0.1",
        "11        0.75  10 s      1                            0",
    ]


def test_titles_are_stacked_before_anything_is_left_out() -> None:
    assert lines(50, stacked=True) == [
        "                             learning_  weight_",
        "trial    score  time  alpha       rate    decay",
        "0 paper    0.5   9 s   0.25        0.1",
        "11        0.75  10 s      1                   0",
    ]


def test_spare_columns_go_before_values_move_below() -> None:
    assert lines(45, stacked=True)[1] == "trial    score  alpha       rate    decay"
    assert lines(30, stacked=True) == [
        "trial    score  time",
        "0 paper    0.5   9 s",
        "    alpha 0.25 ·",
        "    learning_rate 0.1",
        "11        0.75  10 s",
        "    alpha 1 · weight_decay 0",
    ]


def test_long_text_flows_beside_or_below() -> None:
    rows = [Row(["ips"], text="one two three four five six seven eight"), Row(["kd"], text="short")]
    beside = [line.rstrip() for line, _ in lay_out([Column("method")], rows, "what", 40, stacked=True)]
    assert beside == [
        "method  what", "ips     one two three four five six", "        seven eight", "kd      short",
    ]  # fmt: skip
    below = [line.rstrip() for line, _ in lay_out([Column("method")], rows, "what", 30, stacked=True)]
    assert below == ["method", "ips", "    one two three four five", "    six seven eight", "kd", "    short"]


def test_wide_characters_take_two_columns() -> None:
    rows = [Row(["中文", "1"]), Row(["ab", "2"])]
    shown = [line for line, _ in lay_out([Column("name"), Column("n")], rows, "", 80, stacked=True)]
    assert shown[1].rstrip() == "中文  1"
    assert shown[2].rstrip() == "ab    2"


def test_a_table_without_rows_is_its_header() -> None:
    assert [line.rstrip() for line, _ in lay_out(COLUMNS, [], "", 80, stacked=True)] == ["trial  score  time"]
