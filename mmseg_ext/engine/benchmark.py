"""What a model costs: time, memory, arithmetic and where they go, alone or beside another model."""

import copy
import warnings
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import mmcv
import torch
from mmengine.config import Config
from mmengine.optim import build_optim_wrapper
from mmengine.registry import DefaultScope
from mmengine.structures import PixelData
from mmseg.structures import SegDataSample
from torch import Tensor, nn

from mmseg_ext.checkpoints import build_model, check_fit, load_checkpoint, load_weights, safe_loading, tensors_of

from .channels_last import to_channels_last
from .fast_form import fast_form
from .measure import Timing, count_multiply_adds, peak_memory, time_alternating, time_calls
from .runner import enable_amp

# How many images of a folder labels are compared on.
_IMAGES = 32

# How many of the labels the fast form must have in common with the plain one in float32, and in half precision.
_AGREEMENT = {'fp32': 0.9999, 'bf16': 0.98, 'fp16': 0.98}


def benchmark_models(
    cfg: Config,
    checkpoint: str | None = None,
    against: Config | None = None,
    *,
    size: tuple[int, int] | None = None,
    batch: int = 1,
    repeats: int = 10,
    device: str = 'cpu',
    images: str | None = None,
    allow_missing: Sequence[str] = (),
    allow_unexpected: Sequence[str] = (),
    **form: Any,
) -> dict[str, dict]:
    """Measure prediction and training of a config's model, and of another one beside it, taking turns.

    Prediction is ``predict`` of preprocessed images up to labels of their size. A training step is ``train_step``:
    preprocessing, losses, gradients and the optimizer's step. Both on random images and labels, if no others are given.

    Args:
        cfg: the config; ``form`` applies to it.
        checkpoint: its weights, a path or an address; None for random ones. The other model gets the same weights
            where its keys and shapes are equal.
        against: another config, run in its plain form.
        size: height and width of the images; None: of the config's crops.
        batch: images at once; a training step has two at least.
        repeats: rounds that count.
        device: where to run.
        images: a folder of images to predict and to compare labels on, resized to ``size``.
        allow_missing, allow_unexpected: prefixes of keys that may miss in the checkpoint or in the model, see
            :func:`mmseg_ext.checkpoints.coverage.load_weights`.
        form: arguments of :func:`.fast_form.fast_form`; a training step knows ``precision`` and ``channels_last``.

    Returns:
        For the model, and ``'against'``, by name: parameters; of prediction and training step multiply-adds, seconds
        (median and 90th percentile), images a second, peak bytes beyond the weights and time ratios to the first; and
        of a prediction the shares of backbone, head and post-processing. ``label_agreement`` is that of the model's
        labels with those of its plain form in float32 (``'plain'``) and of the other model.

    Raises:
        ValueError: a model can't be built from its config, the checkpoint doesn't fit it, or the fast form has other
            labels than the plain one.
        FileNotFoundError: there is no such checkpoint, or there are no images in the folder.
    """
    warnings.simplefilter('ignore')
    device = torch.device(device)
    size = size or _crop_size(cfg)
    if checkpoint is not None:
        weights = tensors_of(load_checkpoint(checkpoint), f'checkpoint {checkpoint}')
    plain = _build(cfg, 'the model', size)
    fit = dict(allow_missing=allow_missing, allow_unexpected=allow_unexpected)
    if checkpoint is not None:
        # Before weights are initialised, which logs each of them.
        check_fit(plain, weights, str(checkpoint), **fit)
    _initialise(plain.to(device))
    if checkpoint is not None:
        load_weights(plain, weights, str(checkpoint), **fit)
    models, steps = {}, {}
    # A global pool in front of batch normalisation needs two images.
    step_batch = max(2, batch)
    steps['model'] = _training_step(cfg, plain, size, step_batch, device, form)
    if against is not None:
        other = _build(against, '--against', size).to(device)
        _initialise(other)
        same = _shapes(other) == _shapes(plain)
        if same:
            other.load_state_dict(plain.state_dict(), strict=True)
        steps['against'] = _training_step(against, other, size, step_batch, device, {})
    models['model'] = fast_form(copy.deepcopy(plain), **form)
    if against is not None:
        models['against'] = other.eval()

    batches = _batches(plain, size, batch, device, images)
    images = batches[0]
    runs = {name: partial(_predict, model, images) for name, model in models.items()}
    labels = {name: torch.cat([_predict(model, x) for x in batches]) for name, model in models.items()}
    agreement = {'plain': _agreement(labels['model'], torch.cat([_predict(plain, x) for x in batches]))}
    precision = form.get('precision', 'fp32')
    if agreement['plain'] < _AGREEMENT[precision]:
        raise ValueError(
            f'the fast form {form} has only {100 * agreement["plain"]:.2f}% of the labels of the plain form; '
            f'{100 * _AGREEMENT[precision]:g}% are needed. Leave one of the options out to see which it is'
        )
    if against is not None and same:
        agreement['against'] = _agreement(labels['model'], labels['against'])

    times = time_alternating(runs, repeats, device)
    step_times = time_alternating(steps, max(2, repeats // 2), device)
    results = {'label_agreement': agreement}
    for name, model in models.items():
        results[name] = {
            'parameters': sum(p.numel() for p in (plain if name == 'model' else model).parameters()),
            'prediction': _summary(times[name], batch, runs[name], device),
            'training_step': _summary(step_times[name], step_batch, steps[name], device),
            'shares': _shares(model, runs[name], max(2, repeats // 2), device),
        }
    return results


def format_results(results: dict[str, dict]) -> list[list[str]]:
    """Return rows of a table, one for each figure, with a column for each model."""
    names = [name for name in ('model', 'against') if name in results]
    rows = [['', *names]]

    def row(title: str, value: Callable[[dict], str]) -> None:
        rows.append([title, *(value(results[name]) for name in names)])

    row('parameters (10^6)', lambda r: f'{r["parameters"] / 1e6:.1f}')
    for title, key in (('prediction', 'prediction'), ('training step', 'training_step')):
        row(f'{title}: multiply-adds (10^9)', lambda r, key=key: f'{r[key]["multiply_adds"] / 1e9:.1f}')
        row(f'{title}: median ms', lambda r, key=key: f'{1e3 * r[key]["median"]:.1f}')
        row(f'{title}: 90th percentile ms', lambda r, key=key: f'{1e3 * r[key]["p90"]:.1f}')
        row(f'{title}: images a second', lambda r, key=key: f'{r[key]["images_per_second"]:.2f}')
        row(f'{title}: peak MiB', lambda r, key=key: f'{r[key]["peak_bytes"] / 2**20:.0f}')
        row(f'{title}: time ratio to the model', lambda r, key=key: f'{r[key]["ratio"]:.2f}')
    for part in ('backbone', 'head', 'post-processing'):
        row(f'share of the {part}', lambda r, part=part: f'{100 * r["shares"][part]:.0f}%')
    return rows


def _crop_size(cfg: Config) -> tuple[int, int]:
    size = cfg.get('crop_size') or cfg.model.get('data_preprocessor', {}).get('size')
    if size is None:
        raise ValueError('the config has no crop_size; name the size of the images with --size HEIGHTxWIDTH')
    return tuple(size) if isinstance(size, (list, tuple)) else (size, size)


def _build(cfg: Config, name: str, size: tuple[int, int]) -> nn.Module:
    """Build the model of a config for images of a size."""
    model_cfg = copy.deepcopy(cfg.model)
    model_cfg.pop('pretrained', None)
    model_cfg.backbone.pop('init_cfg', None)
    if model_cfg.get('data_preprocessor', {}).get('size') is not None:
        model_cfg.data_preprocessor.size = size  # what training pads to
    try:
        return build_model(model_cfg, cfg.get('default_scope'))
    except (TypeError, KeyError) as error:
        raise ValueError(
            f"{name}: {cfg.get('default_scope')}'s classes can't be built from the config {cfg.filename} ({error}). "
            "mmseg's know neither output_stride nor channels that are left out; compare with a config that mmseg ships"
        ) from error


def _initialise(model: nn.Module) -> None:
    with safe_loading():
        model.init_weights()


def _batches(
    model: nn.Module, size: tuple[int, int], batch: int, device: torch.device, folder: str | None
) -> list[Tensor]:
    """Return preprocessed batches ``(B, C, H, W)``: of the folder's images, or one of random pixels."""
    if folder is None:
        generator = torch.Generator().manual_seed(0)
        images = [torch.randint(0, 256, (3, *size), dtype=torch.uint8, generator=generator) for _ in range(batch)]
    else:
        paths = sorted(path for path in Path(folder).iterdir() if path.suffix.lower() in ('.png', '.jpg', '.jpeg'))
        if len(paths) < batch:
            raise FileNotFoundError(f'--images {folder} holds {len(paths)} .png and .jpg files, a batch needs {batch}')
        resized = (mmcv.imresize(mmcv.imread(path), size[::-1]) for path in paths[:_IMAGES])
        images = [torch.from_numpy(image).permute(2, 0, 1) for image in resized]
    preprocessor = model.data_preprocessor.to(device)
    starts = range(0, len(images) - batch + 1, batch)
    return [preprocessor(dict(inputs=images[i : i + batch]), False)['inputs'].to(device) for i in starts]


@torch.no_grad()
def _predict(model: nn.Module, images: Tensor) -> Tensor:
    """Return the labels, ``(B, H, W)``."""
    model.eval()
    return torch.stack([sample.pred_sem_seg.data[0] for sample in model.predict(images)])


def _shapes(model: nn.Module) -> dict[str, torch.Size]:
    return {name: value.shape for name, value in model.state_dict().items()}


def _agreement(a: Tensor, b: Tensor) -> float:
    return (a.long() == b.long()).double().mean().item()


def _training_step(
    cfg: Config, model: nn.Module, size: tuple[int, int], batch: int, device: torch.device, form: dict
) -> Callable[[], dict]:
    """Return a step on a copy of the model."""
    model = copy.deepcopy(model).train()
    if form.get('channels_last'):
        to_channels_last(model)
    cfg = copy.deepcopy(cfg)
    if form.get('precision', 'fp32') != 'fp32':
        enable_amp(cfg)
    with DefaultScope.overwrite_default_scope('mmseg_ext'):
        optim_wrapper = build_optim_wrapper(model, cfg.optim_wrapper)
    classes = model.num_classes
    meta = dict(ori_shape=size, img_shape=size, pad_shape=size)
    data = dict(
        inputs=[torch.randint(0, 256, (3, *size), dtype=torch.uint8, device=device) for _ in range(batch)],
        data_samples=[
            SegDataSample(
                gt_sem_seg=PixelData(data=torch.randint(0, classes, (1, *size), device=device)), metainfo=meta
            )
            for _ in range(batch)
        ],
    )
    return lambda: model.train_step(copy.deepcopy(data), optim_wrapper)


def _summary(timing: Timing, batch: int, run: Callable[[], object], device: torch.device) -> dict[str, float]:
    return {
        'multiply_adds': count_multiply_adds(run),
        'median': timing.seconds,
        'p90': timing.p90,
        'images_per_second': batch / timing.seconds,
        'peak_bytes': peak_memory(run, device),
        'ratio': timing.ratio,
    }


def _shares(model: nn.Module, run: Callable[[], object], repeats: int, device: torch.device) -> dict[str, float]:
    """Time backbone (with neck) and head inside of predictions; the rest of these is post-processing."""
    with (
        time_calls(model, 'predict', device) as whole,
        time_calls(model, 'extract_feat', device) as backbone,
        time_calls(model.decode_head, 'forward', device) as head,
    ):
        for _ in range(repeats):
            run()
    shares = {'backbone': sum(backbone) / sum(whole), 'head': sum(head) / sum(whole)}
    return {**shares, 'post-processing': 1 - sum(shares.values())}
