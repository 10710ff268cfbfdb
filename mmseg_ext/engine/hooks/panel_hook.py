"""Write a picture of every tested image."""

from pathlib import Path

import mmcv
import numpy as np
from mmengine.fileio import get
from mmengine.hooks import Hook

from mmseg_ext.registry import HOOKS
from mmseg_ext.visualization import draw_panel


@HOOKS.register_module()
class PanelHook(Hook):
    """Write image | truth | prediction with a legend for every tested image.

    Args:
        out_dir: folder for the panels, ``NAME_OF_IMAGE.png`` each; made if missing.
    """

    def __init__(self, out_dir: str):
        self.out_dir = Path(out_dir)

    def before_test(self, runner) -> None:
        self.out_dir.mkdir(parents=True, exist_ok=True)
        meta = runner.test_dataloader.dataset.metainfo
        self._classes, self._palette = meta['classes'], meta['palette']

    def after_test_iter(self, runner, batch_idx, data_batch=None, outputs=None) -> None:
        for sample in outputs:
            image = mmcv.imfrombytes(get(sample.img_path), channel_order='rgb')
            truth = _labels(sample.gt_sem_seg) if 'gt_sem_seg' in sample else None
            panel = draw_panel(image, truth, _labels(sample.pred_sem_seg), self._classes, self._palette)
            mmcv.imwrite(panel[..., ::-1], str(self.out_dir / f'{Path(sample.img_path).stem}.png'))


def _labels(data) -> np.ndarray:
    return data.data.squeeze(0).cpu().numpy()
