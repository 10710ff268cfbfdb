"""What a test or a prediction may change about a trained model: TTA, dense CRF, output stride."""

import argparse

from mmengine.config import Config
from mmengine.registry import MODELS, DefaultScope
from torch import nn

from mmseg_ext.models.segmentors import EncoderDecoder, SegTTAModel

from .fast_form import unwrapped


def add_switch_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument('--tta', action='store_true', help='average over flips and scales')
    parser.add_argument('--crf', action='store_true', help='refine the predictions by the dense CRF')
    parser.add_argument('--output-stride', type=int, metavar='N', help='change it to this one, atrous rates rescaled')
    parser.add_argument('--keep-rates', action='store_true', help='with --output-stride: leave the rates of the head')


def switches_from_args(args: argparse.Namespace) -> dict:
    return {name: getattr(args, name) for name in ('tta', 'crf', 'output_stride', 'keep_rates')}


def use_crf(cfg: Config) -> None:
    """Switch on the dense CRF in a config, with its defaults where ``test_cfg.crf`` of the model has none.

    Raises:
        ValueError: the segmentor is none of ours.
    """
    kind = _registered(cfg, cfg.model.type)
    if not (isinstance(kind, type) and issubclass(kind, EncoderDecoder)):
        raise ValueError(
            f'--crf: the segmentor {cfg.model.type} has no CRF; use --upgrade, or '
            "type='mmseg_ext.EncoderDecoder' in the config"
        )
    if cfg.model.test_cfg.get('crf') is None:
        cfg.model.test_cfg.crf = {}


def use_tta(cfg: Config) -> None:
    """Wrap the config's model into its ``tta_model``, in place; ``tta_pipeline`` is what it has to be fed by.

    Raises:
        ValueError: the config has no ``tta_pipeline`` or ``tta_model``, or a CRF that this one would leave out.
    """
    if 'tta_pipeline' not in cfg or 'tta_model' not in cfg:
        raise ValueError('--tta: the config has no tta_pipeline and tta_model; add them or leave --tta out')
    cfg.tta_model.module = cfg.model
    if _registered(cfg, cfg.tta_model.type) is not SegTTAModel:
        if cfg.model.test_cfg.get('crf') is not None:
            raise ValueError(
                f'test_cfg.crf: tta_model.type={cfg.tta_model.type!r} would leave it out; use --upgrade, or '
                "type='mmseg_ext.SegTTAModel'"
            )
        # mmseg's averages full-size logits, which our segmentor only keeps when it is asked to.
        cfg.model.test_cfg.keep_logits = True
    cfg.model = cfg.tta_model


def set_output_stride(model: nn.Module, output_stride: int, keep_rates: bool = False) -> None:
    """Change the output stride of a segmentor, or of the one that a wrapper holds.

    Args:
        model: the segmentor.
        output_stride: the new one.
        keep_rates: leave the atrous rates of the heads, which then see a smaller part of the image.

    Raises:
        ValueError: the segmentor, or its backbone, can't change it; nothing has been changed then.
    """
    model = unwrapped(model)
    switched = getattr(model, 'backbone', model) if keep_rates else model
    if not hasattr(switched, 'set_output_stride'):
        ours = 'a backbone of mmseg_ext' if keep_rates else "type='mmseg_ext.EncoderDecoder'"
        raise ValueError(
            f'--output-stride {output_stride}: {type(switched).__module__}.{type(switched).__name__} cannot change it; '
            f'use --upgrade, or {ours} in the config'
        )
    switched.set_output_stride(output_stride)


def _registered(cfg: Config, name: str) -> object:
    scope = cfg.get('default_scope') or 'mmseg'
    with DefaultScope.overwrite_default_scope(scope), MODELS.switch_scope_and_registry(None) as registry:
        return registry.get(name)
