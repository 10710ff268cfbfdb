# PSPNet, ResNeSt-50, Cityscapes: the recipe that mmseg publishes for ResNeSt-101, which has no result for this depth.
_base_ = './psp_r50v1c_cityscapes.py'
model = dict(backbone=dict(type='ResNeSt', init_cfg=dict(checkpoint='open-mmlab://resnest50')))
