import numpy as np
import pytest

from mmseg_ext.visualization import draw_overlay, draw_side_by_side

CLASSES = ('road', 'sky', 'tree')
PALETTE = [(10, 20, 30), (200, 210, 220), (0, 255, 0)]
IMAGE = np.full((60, 80, 3), 100, dtype=np.uint8)


@pytest.mark.parametrize(
    ('opacity', 'colour'), [(0, [100, 100, 100]), (0.25, [125, 128, 130]), (0.5, [150, 155, 160]), (1, [200, 210, 220])]
)
def test_opacity_is_the_share_of_the_colour(opacity, colour):
    overlay = draw_overlay(IMAGE, np.ones((60, 80), np.uint8), PALETTE, opacity)
    assert np.abs(overlay.astype(int) - colour).max() <= 1


def test_pixels_without_a_class_stay_as_they_are():
    labels = np.full((60, 80), 255, np.uint8)
    labels[:30] = 2
    overlay = draw_overlay(IMAGE, labels, PALETTE, 1)
    assert (overlay[:30] == [0, 255, 0]).all()
    assert (overlay[30:] == IMAGE[30:]).all()


def test_classes_above_255_have_their_colour():
    palette = [(0, 0, 0)] * 299 + [(1, 2, 3)]
    overlay = draw_overlay(IMAGE, np.full((60, 80), 299, np.uint16), palette, 1)
    assert (overlay == [1, 2, 3]).all()


def test_wrong_opacity_and_wrong_size_are_named():
    with pytest.raises(ValueError, match=r'opacity=1\.5 must be between 0 and 1'):
        draw_overlay(IMAGE, np.zeros((60, 80), int), PALETTE, 1.5)
    with pytest.raises(ValueError, match=r'labels of size \(3, 4\) do not fit the image of size \(60, 80\)'):
        draw_overlay(IMAGE, np.zeros((3, 4), int), PALETTE)


def test_image_and_overlay_stand_side_by_side_over_the_classes_that_occur():
    panel = draw_side_by_side(IMAGE, np.zeros((60, 80), np.uint8), CLASSES, PALETTE, opacity=1)
    assert panel.shape[1] == 2 * 80 + 8
    assert panel[40, 40].tolist() == [100, 100, 100]
    assert panel[40, 80 + 8 + 40].tolist() == [10, 20, 30]
    legend = panel[-15:].reshape(-1, 3).tolist()
    assert [10, 20, 30] in legend
    assert [0, 255, 0] not in legend


def test_the_whole_legend_has_one_size_whatever_occurs():
    panels = [
        draw_side_by_side(IMAGE, np.full((60, 80), label, np.uint8), CLASSES, PALETTE, whole_legend=True)
        for label in (0, 1)
    ]
    assert panels[0].shape == panels[1].shape
    for panel in panels:
        legend = panel[-40:].reshape(-1, 3).tolist()
        assert all(list(colour) in legend for colour in PALETTE)
