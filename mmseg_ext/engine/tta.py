"""Test-time augmentation of a config."""

from mmengine.config import Config
from mmengine.registry import MODELS, DefaultScope

from mmseg_ext.models.segmentors import SegTTAModel


def use_tta(cfg: Config) -> None:
    """Wrap the config's model into its ``tta_model``, in place; ``tta_pipeline`` is what it has to be fed by.

    Raises:
        ValueError: the config has no ``tta_pipeline`` or ``tta_model``, or a CRF that this one would leave out.
    """
    if 'tta_pipeline' not in cfg or 'tta_model' not in cfg:
        raise ValueError('--tta: the config has no tta_pipeline and tta_model; add them or leave --tta out')
    cfg.tta_model.module = cfg.model
    scope = cfg.get('default_scope') or 'mmseg'
    with DefaultScope.overwrite_default_scope(scope), MODELS.switch_scope_and_registry(None) as registry:
        streams = registry.get(cfg.tta_model.type) is SegTTAModel
    if not streams:
        if cfg.model.test_cfg.get('crf') is not None:
            raise ValueError(
                f'test_cfg.crf: tta_model.type={cfg.tta_model.type!r} would leave it out; use --upgrade, or '
                "type='mmseg_ext.SegTTAModel'"
            )
        # mmseg's averages full-size logits, which our segmentor only keeps when it is asked to.
        cfg.model.test_cfg.keep_logits = True
    cfg.model = cfg.tta_model
