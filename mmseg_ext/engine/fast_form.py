"""The fast form of a trained segmentor: for prediction only, with the labels of the plain one up to rounding."""

import argparse
import copy
import logging
from collections import Counter
from collections.abc import Callable

import torch
from mmengine.hooks import Hook
from mmengine.logging import print_log
from mmengine.model import is_model_wrapper
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.nn.utils.fusion import fuse_conv_bn_weights

from mmseg_ext.layers import RectifiedConv2d
from mmseg_ext.registry import HOOKS

from .bfloat16 import slow_bfloat16

PRECISIONS = {'fp32': torch.float32, 'bf16': torch.bfloat16, 'fp16': torch.float16}

# Side of the image that the network is run on to see which normalisation follows which convolution.
_SIDE = 128


def fast_form(
    model: nn.Module,
    *,
    precision: str = 'fp32',
    channels_last: bool = False,
    fold_bn: bool = False,
    compile: bool = False,
) -> nn.Module:
    """Turn a trained segmentor into a faster one, in place, and return it. It predicts as before and trains no more.

    Args:
        model: an ``EncoderDecoder``, ours or mmseg's.
        precision: 'fp32', 'bf16' or 'fp16': what weights and features are kept and computed in. Batch normalisation,
            the backbone's stem and the classifier, where little is computed and much is lost, stay in float32.
        channels_last: the channels innermost in memory.
        fold_bn: make batch normalisation part of the convolution in front of it.
        compile: compile backbone and decode head by ``torch.compile``.

    Raises:
        ValueError: ``precision`` is none of those, or is fp16 on a CPU; normalisation can't be folded; or torch can't
            compile here.
    """
    if precision not in PRECISIONS:
        raise ValueError(f'precision={precision!r} must be one of {list(PRECISIONS)}')
    device = next(model.parameters()).device
    if precision == 'fp16' and device.type == 'cpu':
        raise ValueError("precision='fp16' is slow and inexact on a CPU; use 'bf16'")
    if precision == 'bf16' and device.type == 'cpu' and slow_bfloat16():
        print_log(f"precision='bf16': {slow_bfloat16()}; 'fp32' is faster", logger='current', level=logging.WARNING)
    if compile:
        _check_compiler(device)
    model.eval().requires_grad_(False)
    if fold_bn:
        fold_batch_norm(model)
    if precision != 'fp32':
        _use_half(model, PRECISIONS[precision])
    if channels_last:
        model.to(memory_format=torch.channels_last)
    if compile:
        model.backbone.compile()
        # Not its compile(): mmseg's segmentor calls forward, which that leaves as it is.
        model.decode_head.forward = torch.compile(model.decode_head.forward)
    return model


def _check_compiler(device: torch.device) -> None:
    try:
        torch.compile(torch.square)(torch.zeros(1, device=device))
    except Exception as error:
        reason = str(error).strip().splitlines()[0]
        raise ValueError(
            f'compile: torch cannot compile for {device} here ({reason}); install a C++ compiler, or leave compile out'
        ) from error


def _use_half(model: nn.Module, dtype: torch.dtype) -> None:
    backbone, head = model.backbone, model.decode_head
    stem = getattr(backbone, 'stem', getattr(backbone, 'conv1', None))
    weights = copy.deepcopy(stem.state_dict()) if isinstance(stem, nn.Module) else None
    backbone.to(dtype)
    head.to(dtype)
    if model.with_neck:
        model.neck.to(dtype)
    for module in model.modules():
        if isinstance(module, _BatchNorm):
            module.float()
    if weights is None:
        backbone.register_forward_pre_hook(lambda _, inputs: (inputs[0].to(dtype),))
    else:
        stem.float().load_state_dict(weights)
        stem.register_forward_hook(lambda _, inputs, out: out.to(dtype))
    if isinstance(getattr(head, 'conv_seg', None), nn.Module):
        # Logits in half precision would make classes equal that are not.
        head.conv_seg.float().register_forward_pre_hook(lambda _, inputs: (inputs[0].float(),))


@torch.no_grad()
def fold_batch_norm(model: nn.Module) -> None:
    """Make batch normalisation part of the convolution in front of it, in place, wherever one follows the other.

    A run on random pixels tells which does, and that the logits stay the same.

    Raises:
        ValueError: the logits changed: a convolution's output is used by something else as well.
    """
    parameter = next(model.parameters())
    channels = next(m.in_channels for m in model.backbone.modules() if isinstance(m, nn.Conv2d))
    image = torch.randn(1, channels, _SIDE, _SIDE, dtype=parameter.dtype, device=parameter.device)

    def logits() -> Tensor:
        return model.decode_head.forward(model.extract_feat(image))

    before = logits()
    names = {module: name for name, module in model.named_modules()}
    for norm, conv in _pairs(model, logits).items():
        conv.weight, bias = fuse_conv_bn_weights(
            conv.weight, conv.bias, norm.running_mean, norm.running_var, norm.eps, norm.weight, norm.bias
        )
        conv.bias = nn.Parameter(bias, requires_grad=False)
        parent, _, name = names[norm].rpartition('.')
        setattr(model.get_submodule(parent), name, nn.Identity())
    error = (logits() - before).abs().max() / before.abs().max()
    if not error <= 1e-3:  # nor a NaN
        raise ValueError(
            f'fold_bn: the logits changed by {error:.1e} of the largest; this network uses the output of a convolution '
            'in front of a normalisation elsewhere too. Leave fold_bn out'
        )


def _pairs(model: nn.Module, run: Callable[[], Tensor]) -> dict[nn.Module, nn.Conv2d]:
    """Return the batch normalisations that see the output of one convolution only, which only they see."""
    outputs, inputs_of, handles = {}, {}, []

    def after_conv(conv: nn.Module, _, out: Tensor) -> None:
        outputs[id(out)] = conv, out  # with the tensor itself, so that its id stays its own

    def before_norm(norm: nn.Module, inputs: tuple) -> None:
        conv, _ = outputs.get(id(inputs[0]), (None, None))
        inputs_of.setdefault(norm, []).append(conv)

    for module in model.modules():
        # A rectified convolution scales its bias near the borders.
        if isinstance(module, nn.Conv2d) and not isinstance(module, RectifiedConv2d):
            handles.append(module.register_forward_hook(after_conv))
        elif isinstance(module, _BatchNorm) and module.running_mean is not None:
            handles.append(module.register_forward_pre_hook(before_norm))
    try:
        run()
    finally:
        for handle in handles:
            handle.remove()
    uses = Counter(conv for convs in inputs_of.values() for conv in convs)
    return {
        norm: convs[0]
        for norm, convs in inputs_of.items()
        if len(convs) == 1 and convs[0] is not None and uses[convs[0]] == 1
    }


@HOOKS.register_module()
class FastFormHook(Hook):
    """Test the fast form of a model: puts it in the model's place once all weights are there.

    Args:
        options: arguments of :func:`fast_form`.
    """

    priority = 'VERY_LOW'

    def __init__(self, **options):
        self.options = options

    def before_test_epoch(self, runner) -> None:
        # EMAHook, a priority higher, has exchanged the weights by now, and takes them back from the model itself.
        model = runner.model.module if is_model_wrapper(runner.model) else runner.model
        runner.model = copy.deepcopy(model)
        fast_form(unwrapped(runner.model), **self.options)


def add_form_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the switches of the fast form to a tool."""
    parser.add_argument('--precision', choices=list(PRECISIONS), default='fp32', help='of weights and features')
    parser.add_argument('--channels-last', action='store_true', help='channels innermost in memory')
    parser.add_argument('--fold-bn', action='store_true', help='batch normalisation as part of the convolutions')
    parser.add_argument('--compile', action='store_true', help='torch.compile backbone and head')


def form_from_args(args: argparse.Namespace) -> dict:
    """Return the arguments of :func:`fast_form` that the switches name."""
    return {name: getattr(args, name) for name in ('precision', 'channels_last', 'fold_bn', 'compile')}


def unwrapped(model: nn.Module) -> nn.Module:
    """Return the segmentor inside wrappers for distributed processes and test-time augmentation."""
    while hasattr(model, 'module'):
        model = model.module
    return model
