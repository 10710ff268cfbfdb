"""Models of the zoo that mmseg can't build here: which, why, and the error that says so."""

from dataclasses import dataclass
from fnmatch import fnmatch
from importlib.util import find_spec

import pytest

from .parity import build
from .walk import ZooModel


@dataclass(frozen=True)
class Obstacle:
    """Why a model can't be built, and a pattern of the error that says so."""

    reason: str
    error: str


# mmseg puts a plain BaseModule in place of some of mmdetection's classes, hence the odd error of those.
NO_MMDET = Obstacle(
    'mmdetection is not installed', r'mmdetection|mmdet\.models|BaseModule\.__init__\(\) got an unexpected keyword'
)
NO_OPERATORS = Obstacle('the installed mmcv has no compiled operators', 'Please install .*mmcv for .* ops')

# Pattern of config names -> obstacle.
CANNOT_RUN: dict[str, Obstacle] = {}
if find_spec('mmdet') is None:
    CANNOT_RUN.update({'mask2former/*': NO_MMDET, 'maskformer/*': NO_MMDET})
if find_spec('mmcv._ext') is None:
    CANNOT_RUN.update({'ccnet/*': NO_OPERATORS, 'point_rend/*': NO_OPERATORS, 'psanet/*': NO_OPERATORS})


def obstacle(config: str) -> Obstacle | None:
    """Return why a config can't be built, or None if it can."""
    return next((found for pattern, found in CANNOT_RUN.items() if fnmatch(config, pattern)), None)


def skip_if_it_cannot_run(entry: ZooModel) -> None:
    """Skip a model that is in the table, after a proof that mmseg can't build it either."""
    found = obstacle(entry.configs[0])
    if found is not None:
        with pytest.raises((ImportError, RuntimeError, TypeError), match=found.error):
            build(entry.model, upgrade=False)
        pytest.skip(f'{entry}: {found.reason}')
