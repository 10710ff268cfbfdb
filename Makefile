# make demo               from a fresh clone to a trained, tested, visible segmentation
# make test               the test suite on the default stack (onedl-*)
# make test-openmmlab     the same suite on the official packages; MMCV_WHEEL=path takes a built mmcv wheel
# make lint               ruff
#
# PYTHON=python3.13 uses another interpreter, in an environment of its own.

PYTHON ?= python3
SUFFIX := $(if $(filter python3,$(PYTHON)),,-$(notdir $(PYTHON)))
VENV := .venv$(SUFFIX)
VENV_OPENMMLAB := .venv-openmmlab$(SUFFIX)
MMCV_WHEEL ?= mmcv
PIP_OPTIONS := --quiet --disable-pip-version-check -c constraints.txt
PYTEST_OPTIONS ?=

# opencv-python needs graphics libraries (libGL) that a bare machine lacks; its headless build is the same without them.
define ensure_opencv
$(1)/bin/python -c 'import cv2' 2>/dev/null || { \
    $(1)/bin/pip uninstall --quiet --yes opencv-python && \
    $(1)/bin/pip install $(PIP_OPTIONS) --force-reinstall --no-deps opencv-python-headless; }
endef

.PHONY: demo test test-openmmlab lint clean

# torch and torchvision first and together: a torch of another origin breaks torchvision, which mmpretrain imports.
$(VENV)/.installed: setup.py constraints.txt
	$(PYTHON) -m venv $(VENV)
	$(VENV)/bin/pip install $(PIP_OPTIONS) torch torchvision
	$(VENV)/bin/pip install $(PIP_OPTIONS) -e '.[onedl,tests]'
	$(call ensure_opencv,$(VENV))
	touch $@

# mmcv's own build needs setuptools < 80 and torch in the environment, hence no build isolation.
$(VENV_OPENMMLAB)/.installed: setup.py constraints.txt
	$(PYTHON) -m venv $(VENV_OPENMMLAB)
	$(VENV_OPENMMLAB)/bin/pip install $(PIP_OPTIONS) torch torchvision 'setuptools<80' wheel
	$(VENV_OPENMMLAB)/bin/pip install $(PIP_OPTIONS) --no-build-isolation $(MMCV_WHEEL)
	$(VENV_OPENMMLAB)/bin/pip install $(PIP_OPTIONS) --no-build-isolation -e '.[openmmlab,tests]'
	$(call ensure_opencv,$(VENV_OPENMMLAB))
	touch $@

test: $(VENV)/.installed
	$(VENV)/bin/python -m pytest $(PYTEST_OPTIONS)

test-openmmlab: $(VENV_OPENMMLAB)/.installed
	$(VENV_OPENMMLAB)/bin/python -m pytest $(PYTEST_OPTIONS)

lint: $(VENV)/.installed
	$(VENV)/bin/ruff check .
	$(VENV)/bin/ruff format --check .

demo: $(VENV)/.installed
	$(VENV)/bin/python tools/demo.py demo

clean:
	rm -rf .venv .venv-* demo work_dirs .pytest_cache .ruff_cache .hypothesis
