# DeepLabV3+, ResNet-50 V1c, CamVid at 360x480, backbone pretrained on ImageNet.
_base_ = [
    './_base_/models/deeplabv3plus_r50v1c.py',
    './_base_/datasets/camvid.py',
    './_base_/schedules/adamw_camvid.py',
    './_base_/default_runtime.py',
]
model = dict(
    data_preprocessor=dict(size=(240, 320)),
    decode_head=dict(num_classes=11),
    auxiliary_head=dict(num_classes=11),
)
optim_wrapper = dict(optimizer=dict(lr=3e-4))
default_hooks = dict(checkpoint=dict(interval=500))
