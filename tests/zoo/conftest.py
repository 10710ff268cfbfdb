"""What the comparisons of the zoo need."""

import math

import pytest

from mmseg_ext.layers.pyramid_level import Placing

pytest.register_assert_rewrite('tests.zoo.parity')


@pytest.fixture(autouse=True)
def _convolve_every_smaller_level_below_its_upsampling(monkeypatch):
    """At full size most heads do this; the shrunken maps are too small for it to be cheaper."""
    monkeypatch.setattr(Placing, 'saves', lambda placing, *_: math.prod(placing.low) < math.prod(placing.size))
