"""Cross-entropy with class weights that may meet ignored labels, and with label smoothing.

A drop-in for ``mmseg.CrossEntropyLoss``, which looks up the class weight of the ignored label 255 and fails
(mmsegmentation#3831).
"""

from mmseg.models.losses import CrossEntropyLoss as _CrossEntropyLoss
from mmseg.models.losses.utils import weight_reduce_loss
from torch import Tensor
from torch.nn import functional as F

from mmseg_ext.registry import MODELS


@MODELS.register_module()
class CrossEntropyLoss(_CrossEntropyLoss):
    """mmseg's loss; averaged over the class weights of the labels that are not ignored, where there are class weights.

    Args:
        label_smoothing: share of the target that is spread over all classes (Szegedy et al., arXiv:1512.00567,
            section 7), as in ``torch.nn.functional.cross_entropy``.
        kwargs: arguments of mmseg's loss.

    Raises:
        ValueError: ``label_smoothing`` is not in [0, 1], or is asked for with ``use_sigmoid`` or ``use_mask``.
    """

    def __init__(self, *args, label_smoothing: float = 0.0, **kwargs):
        super().__init__(*args, **kwargs)
        if not 0 <= label_smoothing <= 1:
            raise ValueError(f'label_smoothing={label_smoothing} must be between 0 and 1')
        self.label_smoothing = label_smoothing
        if self.use_sigmoid or self.use_mask:
            if label_smoothing:
                raise ValueError(f'label_smoothing={label_smoothing} works without use_sigmoid and use_mask only')
        else:
            self.cls_criterion = self._cross_entropy

    def _cross_entropy(
        self,
        pred: Tensor,
        label: Tensor,
        weight: Tensor | None = None,
        class_weight: Tensor | None = None,
        reduction: str = 'mean',
        avg_factor: float | None = None,
        ignore_index: int = -100,
        avg_non_ignore: bool = False,
    ) -> Tensor:
        loss = F.cross_entropy(
            pred, label, class_weight, ignore_index=ignore_index, reduction='none', label_smoothing=self.label_smoothing
        )
        if avg_factor is None and reduction == 'mean':
            if class_weight is not None:
                avg_factor = class_weight[label[label != ignore_index]].sum()
            else:
                avg_factor = (label != ignore_index).sum() if avg_non_ignore else label.numel()
        return weight_reduce_loss(loss, None if weight is None else weight.float(), reduction, avg_factor)
