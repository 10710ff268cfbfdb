"""Train and test from Python; ``tools/train.py`` and ``tools/test.py`` only parse arguments and call these."""

import argparse
import logging
import os
from contextlib import nullcontext
from pathlib import Path

from mmengine.config import Config, DictAction
from mmengine.dist import get_rank
from mmengine.logging import print_log

from mmseg_ext.checkpoints import safe_loading
from mmseg_ext.checkpoints.fit_arguments import add_fit_arguments, fit_from_args
from mmseg_ext.datasets.config_check import check_config
from mmseg_ext.datasets.scan import DatasetScan

from .bfloat16 import slow_bfloat16
from .config import load_config
from .distributed import on_first_process, start_processes
from .fast_form import FastFormHook
from .receipts import verify_weights
from .runner import Runner, build_runner, enable_amp
from .switches import set_output_stride, use_crf, use_tta
from .work_dir import held


def train_model(
    cfg: Config,
    resume: str | None = None,
    amp: bool = False,
    channels_last: bool = False,
    load_from: str | None = None,
) -> None:
    """Check weights and data, then train; logs, checkpoints and ``curves.png`` go to ``cfg.work_dir``.

    Args:
        cfg: a config for mmengine's runner; changed in place. ``allow_missing``, ``allow_unexpected`` and
            ``reset_head`` say what of a checkpoint need not fit, see :class:`mmseg_ext.engine.runner.Runner`.
        resume: a checkpoint (path or address) to go on from, or 'auto': the latest of the work directory; where there
            is none, the training begins, from ``load_from`` if the config has it.
        amp: mixed precision, see :func:`mmseg_ext.engine.runner.enable_amp`; float32, with a warning, on a CPU
            where bfloat16 takes at least twice as long.
        channels_last: see :class:`mmseg_ext.engine.hooks.ChannelsLastHook`.
        load_from: a checkpoint (path or address) to begin from, in place of the config's.

    Raises:
        DatasetError: images, labels or class counts are wrong.
        FileNotFoundError: a checkpoint does not exist.
        ValueError: a checkpoint can't be read, doesn't fit, or there are two to begin from.
        BusyError: another training uses the work directory.
        OSError: the work directory can't be written to.
    """
    if resume not in (None, 'auto') and load_from is not None:
        raise ValueError(f'--resume {resume} and --load-from {load_from}: a run begins from one of them')
    slow = amp and slow_bfloat16()
    if amp and not slow:
        enable_amp(cfg)
    if load_from is not None:
        cfg.load_from = load_from
    if resume is not None:
        cfg.resume = 'auto' if resume == 'auto' and 'runner_type' not in cfg else True
        if resume != 'auto':
            cfg.load_from = str(resume)
    if cfg.get('reset_head') and not cfg.get('load_from'):
        raise ValueError('--reset-head is about the weights that a training begins from: add --load-from CHECKPOINT')
    _add_hooks(cfg, 'mmseg_ext.ProgressHook', 'mmseg_ext.CurvesHook', 'mmseg_ext.FiniteWeightsHook')
    if channels_last:
        _add_hooks(cfg, 'mmseg_ext.ChannelsLastHook')
    start_processes(cfg.get('launcher', 'none'), cfg.get('env_cfg', {}))
    with held(cfg.work_dir) if get_rank() == 0 else nullcontext(), safe_loading():
        runner = build_runner(cfg)
        if isinstance(runner, Runner):
            runner.prepare()
        on_first_process(lambda: _check_data(cfg, ('train', 'val')))
        if slow:
            print_log(f'--amp: {slow}; training in float32 instead', logger='current', level=logging.WARNING)
        runner.train()


def evaluate_model(
    cfg: Config,
    checkpoint: str,
    out: str | None = None,
    show_dir: str | None = None,
    tta: bool = False,
    output_stride: int | None = None,
    keep_rates: bool = False,
    form: dict | None = None,
    crf: bool = False,
) -> dict[str, float]:
    """Check the data, test a checkpoint and print the per-class table.

    Args:
        cfg: a config for mmengine's runner; changed in place.
        checkpoint: the file with the weights.
        out: folder for the predictions, as index PNGs.
        show_dir: folder for panels image | truth | prediction.
        tta: average over the config's test-time augmentations.
        output_stride: change the network's to this one, atrous rates with it.
        keep_rates: leave the atrous rates as they are all the same.
        form: arguments of :func:`mmseg_ext.engine.fast_form.fast_form`; None: the plain form.
        crf: refine the predictions by the dense CRF, with its defaults where ``test_cfg.crf`` of the model has none.

    Returns:
        The metrics by name.

    Raises:
        DatasetError: images, labels or class counts are wrong.
        ImportError: the CRF is asked for and pydensecrf2 is not installed.
        FileNotFoundError: the checkpoint does not exist.
        ValueError: the checkpoint can't be read, doesn't fit the model or isn't the one of its receipt; ``tta`` is
            asked for and the config has no ``tta_pipeline``, the network can't have that output stride, or the
            segmentor, or its ``tta_model``, is none of ours and a CRF is asked for.
    """
    cfg.load_from, cfg.resume, cfg.reset_head = str(checkpoint), False, False
    # It takes part in training alone.
    cfg.allow_missing = [*cfg.get('allow_missing', []), 'auxiliary_head.']
    if keep_rates and output_stride is None:
        raise ValueError('--keep-rates is about a change of the output stride: add --output-stride')
    if crf:
        use_crf(cfg)
    if tta:
        use_tta(cfg)
        cfg.test_dataloader.dataset.pipeline = cfg.tta_pipeline
    if out is not None:
        for evaluator in cfg.test_evaluator if isinstance(cfg.test_evaluator, list) else [cfg.test_evaluator]:
            evaluator['output_dir'] = out
            evaluator['keep_results'] = True
    _add_hooks(cfg, 'mmseg_ext.ProgressHook')
    if show_dir is not None:
        cfg.custom_hooks.append(dict(type='mmseg_ext.PanelHook', out_dir=show_dir))
    start_processes(cfg.get('launcher', 'none'), cfg.get('env_cfg', {}))
    with safe_loading():
        runner = build_runner(cfg)
        receipt = None
        if isinstance(runner, Runner):
            runner.prepare()
            receipt = verify_weights(checkpoint, runner.weights)
        scans = on_first_process(lambda: _check_data(cfg, ('test',))) or {}
        if output_stride is not None:
            set_output_stride(runner.model, output_stride, keep_rates)
        if form:
            runner.register_hook(FastFormHook(**form))
        metrics = runner.test()
    is_plain = not (tta or crf or output_stride) and _is_plain(form or {})
    if receipt is not None and is_plain:
        print_log(receipt.compare(runner.test_dataloader.dataset, metrics), logger='current')
    if 'test' in scans and scans['test'].class_pixels.any():
        print_log(_constant_prediction(scans['test']), logger='current')
    return metrics


def _is_plain(form: dict) -> bool:
    return all(value in (False, None, 'fp32') for value in form.values())


def _check_data(cfg: Config, splits: tuple[str, ...]) -> dict[str, DatasetScan]:
    check = check_config(cfg, splits)
    check.raise_for_problems()
    return check.scans


def _add_hooks(cfg: Config, *types: str) -> None:
    hooks = cfg.setdefault('custom_hooks', [])
    present = {hook['type'].removeprefix('mmseg_ext.') for hook in hooks}
    hooks += [dict(type=kind) for kind in types if kind.removeprefix('mmseg_ext.') not in present]


def _constant_prediction(scan: DatasetScan) -> str:
    """What the commonest class everywhere would reach: the floor that a result has to be seen against."""
    share = scan.class_pixels.max() / scan.class_pixels.sum()
    name = scan.classes[scan.class_pixels.argmax()]
    miou = share / (scan.class_pixels > 0).sum()
    return f"For comparison, '{name}' everywhere: aAcc {100 * share:.2f}  mIoU {100 * miou:.2f}"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the arguments that our tools share."""
    parser.add_argument('config', help="config file, or the name of one that mmseg ships: 'mmseg::...'")
    parser.add_argument('--work-dir', help='folder for logs and checkpoints (default: work_dirs/NAME_OF_CONFIG)')
    parser.add_argument('--upgrade', action='store_true', help="use our classes in place of mmseg's of the same name")
    parser.add_argument(
        '--cfg-options', nargs='+', action=DictAction, help='config values to replace: key.subkey=value ...'
    )
    add_fit_arguments(parser)
    parser.add_argument('--launcher', choices=['none', 'pytorch', 'slurm', 'mpi'], default='none', help='job launcher')
    parser.add_argument('--local_rank', '--local-rank', type=int, default=0, help='set by torch.distributed.launch')


def config_from_args(args: argparse.Namespace) -> Config:
    """Load the config that the shared arguments describe."""
    os.environ.setdefault('LOCAL_RANK', str(args.local_rank))
    cfg = load_config(args.config, args.cfg_options, args.upgrade)
    cfg.launcher = args.launcher
    cfg.merge_from_dict({name: prefixes for name, prefixes in fit_from_args(args).items() if prefixes})
    cfg.work_dir = args.work_dir or cfg.get('work_dir') or str(Path('work_dirs', Path(cfg.filename).stem))
    return cfg
