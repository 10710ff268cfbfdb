# DeepLabV2, ResNet-101, output stride 8, Cityscapes (arXiv:1606.00915, section 4.4), with mmseg's 80k schedule: the
# paper's poly policy with power 0.9.
_base_ = [
    './_base_/models/deeplabv2_r101.py',
    './_base_/datasets/cityscapes.py',
    './_base_/schedules/sgd_80k.py',
    './_base_/default_runtime.py',
]
model = dict(data_preprocessor=dict(size=(512, 1024)))
