import re

import numpy as np
import pytest
from PIL import Image

from mmseg_ext.visualization import draw_confusion


def texts(path) -> list[str]:
    """The texts of an SVG that matplotlib wrote: it leaves each beside its glyphs."""
    return re.findall(r'<!-- (.+?) -->', path.read_text())


def test_values_are_percent_of_the_true_class_and_those_that_round_to_zero_are_left_out(tmp_path):
    matrix = np.array([[600, 200, 0], [1, 9999, 0], [0, 0, 0]])
    draw_confusion(matrix, ['road', 'sky', 'car'], tmp_path / 'c.svg')
    found = texts(tmp_path / 'c.svg')
    assert [text for text in found if re.fullmatch(r'[\d.]+', text)] == ['75.0', '25.0', '100.0']
    assert {'road', 'sky', 'car', 'truth', 'prediction'} < set(found)


@pytest.mark.parametrize(('classes', 'least', 'most'), [(2, 300, 700), (19, 900, 1500), (150, 3500, 5000)])
def test_the_picture_grows_with_the_classes(tmp_path, classes, least, most):
    draw_confusion(np.eye(classes, dtype=int), [f'class {i}' for i in range(classes)], tmp_path / 'c.png')
    size = Image.open(tmp_path / 'c.png').size
    assert least < min(size) <= max(size) < most
