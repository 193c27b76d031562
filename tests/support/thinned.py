"""Tables too long for every run: the suite takes a part, spread evenly, a slow test all."""

import pytest


def thinned(every: int) -> pytest.MarkDecorator:
    """Parametrises a test with `every`, of which it is to take `rows[::every]`: as it stands here,
    and marked slow with 1."""
    part = pytest.param(every, id=f"one in {every}")
    return pytest.mark.parametrize(
        "every", [part, pytest.param(1, id="all", marks=pytest.mark.slow)]
    )
