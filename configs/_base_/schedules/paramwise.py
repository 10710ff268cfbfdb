# To be inherited beside a schedule: no weight decay on normalisation layers and biases, ten times the learning rate on
# the heads (DeepLab, arXiv:1606.00915, section 4.1; mmseg's and detectron2's habit for weight decay).
optim_wrapper = dict(
    constructor='mmseg_ext.ParamwiseOptimWrapperConstructor',
    paramwise_cfg=dict(
        norm_decay_mult=0.0,
        bias_decay_mult=0.0,
        custom_keys=dict(decode_head=dict(lr_mult=10.0), auxiliary_head=dict(lr_mult=10.0)),
    ),
)
