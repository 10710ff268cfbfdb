"""Which torch and which OpenMMLab packages are installed, and whether this package supports them.

Two stacks share the import names ``mmengine``, ``mmcv`` and ``mmseg``: the maintained ``onedl-*`` packages and the
official ones. Both are supported, neither is a requirement of ours, so that installing the plugin never changes a
stack that is already there. The price is this check.
"""

import importlib
from importlib import metadata

from packaging.specifiers import SpecifierSet
from packaging.version import Version

# Import name -> versions that work. The ends that the test suite runs on: torch 2.10.0 and 2.14.1, mmengine 0.10.7 and
# 0.10.12, mmcv 2.1.0 and 2.3.6, mmseg 1.2.2 and 1.4.2. Below torch 2.10 `torch.load(weights_only=True)` can be made to
# corrupt memory (CVE-2026-24747), below 2.6 to execute code (CVE-2025-32434): we don't load files by it, but other
# code in the process does.
SUPPORTED = {'torch': '>=2.10.0', 'mmengine': '>=0.10.4,<1.0', 'mmcv': '>=2.1.0,<2.4', 'mmseg': '>=1.2.0,<1.5'}

# Flavour -> import name -> what pip has to install.
_REQUIREMENTS = {
    'onedl': {
        'torch': 'torch>=2.10.0',
        'mmengine': 'onedl-mmengine==0.10.12',
        'mmcv': 'onedl-mmcv==2.3.6',
        'mmseg': 'onedl-mmsegmentation==1.4.2',
    },
    'openmmlab': {
        'torch': 'torch>=2.10.0',
        'mmengine': 'mmengine==0.10.7',
        'mmcv': 'mmcv==2.1.0',
        'mmseg': 'mmsegmentation==1.2.2',
    },
}
_DISTRIBUTIONS = {'mmengine': ('mmengine',), 'mmcv': ('mmcv', 'mmcv-lite', 'mmcv-full'), 'mmseg': ('mmsegmentation',)}


def _has_distribution(name: str) -> bool:
    try:
        metadata.version(name)
    except metadata.PackageNotFoundError:
        return False
    return True


def stack_flavour() -> str:
    """Return ``'openmmlab'`` when an official package is installed and no ``onedl-*`` one, else ``'onedl'``."""
    names = [name for distributions in _DISTRIBUTIONS.values() for name in distributions]
    if any(_has_distribution(f'onedl-{name}') for name in names):
        return 'onedl'
    return 'openmmlab' if any(_has_distribution(name) for name in names) else 'onedl'


def check_stack() -> dict[str, str]:
    """Import the stack and return its versions by import name.

    Raises:
        RuntimeError: a package is missing, does not import or has an unsupported version. The message names what was
            found, what is needed and the pip command that mends it.
    """
    versions, problems, requirements = {}, [], []
    for name, supported in SUPPORTED.items():
        try:
            version = importlib.import_module(name).__version__
        except ModuleNotFoundError as error:
            found = 'not installed' if error.name == name else f'fails to import ({error})'
        except Exception as error:  # mmseg asserts on mmcv's version when imported; compiled ops raise ImportError
            found = f'fails to import ({type(error).__name__}: {error})'
        else:
            versions[name] = version
            if SpecifierSet(supported).contains(Version(version), prereleases=True):
                continue
            found = f'version {version}'
        problems.append(f'  {name}: found {found}, needed {supported}')
        # opencv-python needs graphics libraries that a server may lack; the headless build of it does not.
        lacks_graphics = 'libGL' in found or 'libgthread' in found
        requirements.append('opencv-python-headless' if lacks_graphics else _REQUIREMENTS[stack_flavour()][name])
    if problems:
        raise RuntimeError(
            'mmseg_ext needs an OpenMMLab stack that it supports:\n'
            + '\n'.join(problems)
            + '\nTo mend it: pip install '
            + ' '.join(f'"{requirement}"' for requirement in dict.fromkeys(requirements))
        )
    return versions
