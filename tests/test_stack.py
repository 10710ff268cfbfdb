import subprocess
import sys

import pytest

import mmseg_ext
from mmseg_ext.stack import SUPPORTED, check_stack


def import_with(code: str) -> subprocess.CompletedProcess:
    return subprocess.run(
        [sys.executable, '-c', f'import sys\n{code}\nimport mmseg_ext'], capture_output=True, text=True, check=False
    )


def write_package(folder, name: str, code: str) -> str:
    (folder / name).mkdir()
    (folder / name / '__init__.py').write_text(code)
    return f'sys.path.insert(0, {str(folder)!r})'


def test_the_installed_stack_is_supported_and_its_versions_are_returned():
    assert set(check_stack()) == set(SUPPORTED)
    assert mmseg_ext.__version__


def test_missing_mmseg_is_a_runtime_error_that_names_it_and_the_pip_command():
    result = import_with("sys.modules['mmseg'] = None")
    assert result.returncode != 0
    assert 'RuntimeError' in result.stderr
    assert 'mmseg: found not installed, needed >=1.2.0' in result.stderr
    assert 'pip install' in result.stderr
    assert 'mmsegmentation==' in result.stderr


def test_too_old_mmcv_is_a_runtime_error_that_names_found_and_needed_version(tmp_path):
    result = import_with(write_package(tmp_path, 'mmcv', "__version__ = '1.7.2'"))
    assert result.returncode != 0
    assert 'RuntimeError' in result.stderr
    assert 'mmcv: found version 1.7.2, needed >=2.1.0,<2.4' in result.stderr
    assert 'pip install "' in result.stderr
    assert 'mmcv==' in result.stderr


def test_a_torch_with_a_known_hole_is_named_with_the_version_that_has_none(tmp_path):
    result = import_with(write_package(tmp_path, 'torch', "__version__ = '2.9.1+cpu'"))
    assert 'torch: found version 2.9.1+cpu, needed >=2.10.0' in result.stderr
    assert '"torch>=2.10.0"' in result.stderr


def test_a_package_that_breaks_on_import_is_reported_with_its_own_error(tmp_path):
    result = import_with(write_package(tmp_path, 'mmseg', "raise AssertionError('MMCV==9 is incompatible')"))
    assert 'mmseg: found fails to import (AssertionError: MMCV==9 is incompatible)' in result.stderr


def test_missing_graphics_library_leads_to_headless_opencv(tmp_path):
    error = "raise ImportError('libGL.so.1: cannot open shared object file')"
    result = import_with(write_package(tmp_path, 'mmcv', error))
    assert 'pip install "opencv-python-headless"' in result.stderr


@pytest.mark.parametrize('name', ['torch', 'mmengine', 'mmcv', 'mmsegmentation', 'mmpretrain'])
def test_installing_the_plugin_requires_no_part_of_the_stack(name):
    from importlib.metadata import requires

    unconditional = [requirement for requirement in requires('mmseg_ext') if 'extra ==' not in requirement]
    assert not any(name in requirement for requirement in unconditional)
