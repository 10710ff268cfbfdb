"""Parameter groups whose learning rate and weight decay are chosen independently."""

from mmengine.optim import DefaultOptimWrapperConstructor
from torch import nn
from torch.nn.modules.batchnorm import _NormBase

from mmseg_ext.registry import OPTIM_WRAPPER_CONSTRUCTORS

_NORMS = (_NormBase, nn.GroupNorm, nn.LayerNorm)


@OPTIM_WRAPPER_CONSTRUCTORS.register_module()
class ParamwiseOptimWrapperConstructor(DefaultOptimWrapperConstructor):
    """mmengine's ``DefaultOptimWrapperConstructor``, with one rule changed.

    There, a parameter that ``custom_keys`` names gets none of ``norm_decay_mult`` and ``bias_decay_mult``, so a head
    with ten times the learning rate also decays its norms and biases. Here it gets them, unless its custom key says
    ``decay_mult`` itself.
    """

    def add_params(self, params: list[dict], module: nn.Module, prefix: str = '', is_dcn_module=None) -> None:
        super().add_params(params, module, prefix, is_dcn_module)
        if prefix or self.base_wd is None:
            return
        groups = {id(parameter): group for group in params for parameter in group['params']}
        keys = self.paramwise_cfg.get('custom_keys', {})
        for layer_name, layer in module.named_modules():
            for name, parameter in layer.named_parameters(prefix=layer_name, recurse=False):
                # mmengine's order: the longest key that is part of the name counts.
                key = next((key for key in sorted(sorted(keys), key=len, reverse=True) if key in name), None)
                if key is None or 'decay_mult' in keys[key] or id(parameter) not in groups:
                    continue
                if isinstance(layer, _NORMS):
                    mult = self.paramwise_cfg.get('norm_decay_mult')
                else:
                    mult = self.paramwise_cfg.get('bias_decay_mult') if name.endswith('bias') else None
                if mult is not None:
                    groups[id(parameter)]['weight_decay'] = self.base_wd * mult
