import re

from .cannot_run import CANNOT_RUN, obstacle
from .walk import ROOT, replaced, zoo


def test_every_shipped_config_is_compared_or_named_with_a_reason():
    compared = [name for entry in zoo().models for name in entry.configs]
    named = [*zoo().foreign, *zoo().unreadable]
    shipped = [path.relative_to(ROOT).as_posix() for path in ROOT.glob('[!_]*/*.py')]
    assert sorted(compared + named) == sorted(shipped)
    assert len(compared) > 600


def test_configs_that_can_not_be_read_are_those_of_the_table():
    for name, error in zoo().unreadable.items():
        assert re.search(obstacle(name).error, str(error)), name


def test_no_entry_of_the_table_is_out_of_date():
    names = [name for entry in zoo().models for name in entry.configs] + list(zoo().unreadable)
    assert {obstacle(name) for name in names} - {None} == set(CANNOT_RUN.values())


def test_our_classes_stand_in_for_these_of_mmseg():
    assert replaced().keys() >= {
        *('ResNet', 'ResNetV1c', 'ResNetV1d', 'ResNeSt'),
        *('PSPHead', 'ASPPHead', 'DepthwiseSeparableASPPHead', 'UPerHead', 'SegformerHead', 'FCNHead'),
        *('EncoderDecoder', 'CrossEntropyLoss'),
    }
