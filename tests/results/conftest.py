"""Rows of the table are trained and tested by tools: what tests of these get."""

from tests.tools.conftest import without_pictures  # noqa: F401
