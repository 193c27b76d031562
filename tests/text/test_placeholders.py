"""The one grammar of placeholders, for prompts and for those who ask what a prompt shows."""

import pytest

from malt_jax.text.placeholders import fields, fill


@pytest.mark.parametrize(
    ("prompt", "names", "filled"),
    [
        ("{b} {a} {b}", ("b", "a"), "<b> <a> <b>"),
        ("{{a}} {b}", ("b",), "{a} <b>"),
        ("{{{a}}}", (), "{{a}}"),
        ("{a}}", ("a",), "<a>}"),
        ("{{a}", ("a",), "{<a>"),
        ("\\boxed{} \\frac{1}{2} { a } {1a} {a-b} {a.b}", (), None),
        ("{größe_2} {_}", ("größe_2", "_"), "<größe_2> <_>"),
    ],
)
def test_fields_are_those_that_are_filled(prompt, names, filled):
    assert fields(prompt) == names
    assert fill(prompt, lambda name: f"<{name}>") == (prompt if filled is None else filled)


def test_values_are_not_filled_again():
    assert fill("{a}{b}", {"a": "{b}", "b": "{{a}}"}.__getitem__) == "{b}{{a}}"
