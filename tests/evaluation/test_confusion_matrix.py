import pytest
import torch

from mmseg_ext.evaluation import confusion_matrix, count_confusion


def test_a_literal_matrix_with_values_outside_of_the_classes():
    label = torch.tensor([0, 0, 1, 1, 1, 255, 7, -1, 2])
    prediction = torch.tensor([0, 1, 1, 9, -3, 0, 1, 2, 2])
    expected = [
        [1, 1, 0, 0],
        [0, 1, 0, 2],
        [0, 0, 1, 0],
        [0, 1, 1, 0],
    ]
    assert count_confusion(prediction, label, 3, ignore_index=255).tolist() == expected


@pytest.mark.parametrize('ignore_index', [1, 255, -1])
@pytest.mark.parametrize(
    'dtypes', [(torch.uint8, torch.uint8), (torch.int64, torch.uint8), (torch.float32, torch.int64)]
)
def test_every_number_type_gives_the_counts_of_a_loop_over_the_classes(ignore_index, dtypes, monkeypatch):
    monkeypatch.setattr(confusion_matrix, '_CHUNK', 100)  # several chunks, the last of them not full
    prediction, label = (torch.randint(0, 6, (23, 17)).to(dtype) for dtype in dtypes)
    label[3] = 255
    counted = label.int() != ignore_index  # uint8 would take -1 for 255
    columns = [prediction == c for c in range(4)] + [prediction >= 4]
    rows = [label == c for c in range(4)] + [label >= 4]
    expected = [[int((row & column & counted).sum()) for column in columns] for row in rows]
    counts = count_confusion(prediction, label, 4, ignore_index)
    assert counts.dtype == torch.int64
    assert counts.tolist() == expected


def test_the_arguments_stay_as_they_are():
    prediction, label = torch.randint(0, 9, (2, 8, 8), dtype=torch.int32)
    before = prediction.clone(), label.clone()
    count_confusion(prediction, label, 4, ignore_index=0)
    assert torch.equal(prediction, before[0])
    assert torch.equal(label, before[1])
