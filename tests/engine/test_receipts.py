"""Receipts: what they hold, and that another file is told from the one they are of."""

import json

import pytest
import torch

from mmseg_ext.engine.receipts import Receipt, hash_data_list, hash_weights, receipt_path, verify_weights


@pytest.fixture
def weights() -> dict:
    return {'b': torch.arange(6.0).reshape(2, 3), 'a': torch.tensor(3), 'c': torch.zeros(2, dtype=torch.bfloat16)}


def test_the_hash_is_of_names_types_shapes_and_values(weights):
    expected = hash_weights(weights)
    assert hash_weights(dict(reversed(weights.items()))) == expected
    assert hash_weights({**weights, 'b': weights['b'].t().contiguous().t()}) == expected
    for changed in (
        {**weights, 'b': weights['b'].reshape(3, 2)},
        {**weights, 'b': weights['b'].double()},
        {**weights, 'b': weights['b'] + 1e-6},
        {**weights, 'd': torch.zeros(0)},
        {('x' if key == 'a' else key): value for key, value in weights.items()},
    ):
        assert hash_weights(changed) != expected


def test_weights_of_a_receipt_pass_others_are_refused_and_none_is_none(tmp_path, weights):
    checkpoint = tmp_path / 'best.pth'
    assert verify_weights(checkpoint, weights) is None
    Receipt.of_weights(weights).write(receipt_path(checkpoint))
    assert verify_weights(checkpoint, weights) is not None
    with pytest.raises(ValueError, match=r'best\.pth has not the weights of its receipt .*best\.json'):
        verify_weights(checkpoint, {**weights, 'a': torch.tensor(4)})


@pytest.mark.parametrize('content', ['', 'no', '[]', '{}', '{"format": 1}', '{"format": 9, "weights": "x"}'])
def test_another_json_beside_a_checkpoint_is_named(tmp_path, weights, content):
    (tmp_path / 'best.json').write_text(content)
    with pytest.raises(ValueError, match=r'best\.json is no receipt'):
        verify_weights(tmp_path / 'best.pth', weights)


class Files:
    def __init__(self, root: str, names: list[str]):
        self.data_root, self.names = root, names

    def __len__(self) -> int:
        return len(self.names)

    def get_data_info(self, i: int) -> dict:
        return dict(
            img_path=f'{self.data_root}/img/{self.names[i]}', seg_map_path=f'{self.data_root}/seg/{self.names[i]}'
        )


def test_the_same_files_under_another_root_have_the_same_hash():
    expected = hash_data_list(Files('/a', ['1.png', '2.png']))
    assert expected['samples'] == 2
    assert hash_data_list(Files('/b/c', ['1.png', '2.png'])) == expected
    assert hash_data_list(Files('/a', ['1.png', '3.png'])) != expected
    assert hash_data_list([1, 2]) is None


def test_a_test_is_compared_with_the_receipt(tmp_path):
    data = Files('/a', ['1.png'])
    receipt = Receipt(dict(data=dict(val=hash_data_list(data)), metrics=dict(mIoU=50.0)))
    assert receipt.compare(data, dict(mIoU=50.0)) == 'receipt: weights, data and metrics as recorded'
    assert 'mIoU' in receipt.compare(data, dict(mIoU=49.0))
    assert 'other data' in receipt.compare(Files('/a', ['2.png']), dict(mIoU=50.0))
    receipt.write(tmp_path / 'r.json')
    assert json.loads((tmp_path / 'r.json').read_text()) == receipt.content
