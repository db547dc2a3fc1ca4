"""The front of value, parameters and latency, by cases that can be told by eye and by its definition."""

from __future__ import annotations

import random

import pytest

from kdsearch.results.front import Point, on_front

SMALL, MIDDLE, LARGE = Point(0.80, 100, 0.001), Point(0.85, 200, 0.002), Point(0.90, 300, 0.003)


def test_what_is_better_the_more_it_costs_is_all_on_the_front() -> None:
    assert on_front([SMALL, MIDDLE, LARGE], "max") == [True, True, True]


def test_a_single_student_is_on_the_front() -> None:
    assert on_front([SMALL], "max") == [True]
    assert on_front([], "max") == []


def test_what_another_beats_in_one_figure_and_equals_in_the_others_is_not_on_it() -> None:
    for worse in (Point(0.84, 200, 0.002), Point(0.85, 201, 0.002), Point(0.85, 200, 0.0021)):
        assert on_front([worse, MIDDLE], "max") == [False, True]


def test_what_is_worse_in_two_figures_and_better_in_one_is_on_it() -> None:
    assert on_front([Point(0.1, 500, 0.0005), MIDDLE], "max") == [True, True]


def test_equal_students_are_on_it_together_or_not_at_all() -> None:
    assert on_front([MIDDLE, MIDDLE], "max") == [True, True]
    assert on_front([MIDDLE, Point(0.86, 200, 0.002), MIDDLE], "max") == [False, True, False]


def test_of_a_metric_that_falls_the_lower_value_is_the_better() -> None:
    assert on_front([SMALL, MIDDLE, LARGE], "min") == [True, False, False]


def test_a_student_without_a_value_is_not_on_it_and_beats_nobody() -> None:
    assert on_front([Point(None, 1, 0.0), LARGE], "max") == [False, True]
    assert on_front([Point(None, 1, 0.0)], "max") == [False]


@pytest.mark.parametrize("mode", ["max", "min"])
def test_the_front_is_what_the_definition_says_of_many_random_students(mode: str) -> None:
    draw = random.Random(7)
    for _ in range(200):
        points = [Point(draw.randint(0, 4), draw.randint(1, 4), draw.randint(1, 4)) for _ in range(draw.randint(1, 12))]
        for point, found in zip(points, on_front(points, mode), strict=True):
            beaten = False
            for other in points:
                assert other.value is not None
                assert point.value is not None
                gain = other.value - point.value if mode == "max" else point.value - other.value
                smaller, faster = point.parameters - other.parameters, point.latency - other.latency
                beaten |= min(gain, smaller, faster) >= 0 and max(gain, smaller, faster) > 0
            assert found is not beaten
