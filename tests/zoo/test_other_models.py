"""The part of the zoo with other backbones than ResNet and ResNeSt; test processes share work by the file."""

import pytest

from .cannot_run import skip_if_it_cannot_run
from .parity import assert_parity
from .walk import has_resnet, zoo


@pytest.mark.parametrize('entry', [entry for entry in zoo().models if not has_resnet(entry)], ids=str)
def test_upgraded_model_has_mmsegs_keys_logits_labels_losses_and_gradients(entry):
    skip_if_it_cannot_run(entry)
    assert_parity(entry.model)
