# DeepLabV3+, Aligned Xception-65 with output stride 16, Cityscapes: the paper's model by mmseg's recipe for the other
# backbones; OpenMMLab publishes none for this one.
_base_ = [
    './_base_/models/deeplabv3plus_x65.py',
    './_base_/datasets/cityscapes.py',
    './_base_/schedules/sgd_80k.py',
    './_base_/default_runtime.py',
]
model = dict(data_preprocessor=dict(size=(512, 1024)))
