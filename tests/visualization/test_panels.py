import numpy as np
import pytest

from mmseg_ext.visualization import draw_panel
from mmseg_ext.visualization.panels import colourise

CLASSES = ('road', 'sky', 'tree')
PALETTE = [(10, 20, 30), (200, 210, 220), (0, 255, 0)]


def test_labels_become_their_colours_and_ignored_pixels_black():
    colours = colourise(np.array([[0, 2, 255]]), PALETTE)
    assert colours.tolist() == [[[10, 20, 30], [0, 255, 0], [0, 0, 0]]]


def test_panel_holds_image_truth_and_prediction_side_by_side():
    image = np.full((60, 80, 3), 99, dtype=np.uint8)
    truth, prediction = np.zeros((60, 80), int), np.ones((60, 80), int)
    panel = draw_panel(image, truth, prediction, CLASSES, PALETTE)
    row = panel[40]
    assert row[40].tolist() == [99, 99, 99]
    assert row[80 + 8 + 40].tolist() == [10, 20, 30]
    assert row[160 + 16 + 40].tolist() == [200, 210, 220]
    assert panel.shape[1] == 3 * 80 + 2 * 8


def test_legend_names_only_the_classes_that_occur():
    image = np.zeros((60, 80, 3), dtype=np.uint8)
    one = draw_panel(image, None, np.zeros((60, 80), int), CLASSES, PALETTE)
    legend = one[-15:].reshape(-1, 3).tolist()
    assert [10, 20, 30] in legend
    assert [0, 255, 0] not in legend


def test_many_classes_wrap_into_more_legend_rows():
    image = np.zeros((60, 80, 3), dtype=np.uint8)
    names, palette = [f'class number {i}' for i in range(9)], [(i, i, i) for i in range(9)]
    labels = np.arange(60 * 80).reshape(60, 80) % 9
    few = draw_panel(image, None, labels % 2, names, palette)
    many = draw_panel(image, None, labels, names, palette)
    assert many.shape[0] > few.shape[0]


def test_a_label_map_of_another_size_is_named():
    with pytest.raises(ValueError, match=r'truth of size \(3, 4\) does not fit the image of size \(60, 80\)'):
        draw_panel(np.zeros((60, 80, 3), np.uint8), np.zeros((3, 4), int), np.zeros((60, 80), int), CLASSES, PALETTE)
