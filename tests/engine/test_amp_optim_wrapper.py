import pytest
import torch
from mmengine.config import Config
from mmengine.optim import OptimWrapper

from mmseg_ext.engine.optim_wrapper import AmpOptimWrapper
from mmseg_ext.engine.runner import enable_amp, has_accelerator

on_cpu = pytest.mark.skipif(has_accelerator(), reason='what the wrapper does on a CPU')


def wrapper(**kwargs) -> AmpOptimWrapper:
    model = torch.nn.Linear(4, 4)
    built = AmpOptimWrapper(optimizer=torch.optim.SGD(model.parameters(), lr=0.1), **kwargs)
    built.initialize_count_status(model, 0, 10)
    return built, model


@on_cpu
def test_on_a_cpu_the_forward_pass_is_bfloat16_and_the_weights_stay_float32():
    optim_wrapper, model = wrapper()
    with optim_wrapper.optim_context(model):
        out = model(torch.ones(2, 4))
    assert out.dtype == torch.bfloat16
    before = model.weight.clone()
    optim_wrapper.update_params(out.float().square().mean())
    assert model.weight.dtype == torch.float32
    assert not torch.equal(model.weight, before)


@on_cpu
def test_gradients_are_clipped_unscaled():
    optim_wrapper, model = wrapper(clip_grad=dict(max_norm=1e-3))
    optim_wrapper.backward(1000 * model(torch.ones(2, 4)).sum())
    optim_wrapper._clip_grad()
    assert torch.cat([p.grad.ravel() for p in model.parameters()]).norm() <= 1.001e-3


@on_cpu
def test_state_moves_to_and_from_a_wrapper_without_mixed_precision():
    optim_wrapper, model = wrapper()
    optim_wrapper.load_state_dict(optim_wrapper.state_dict())
    plain = OptimWrapper(torch.optim.SGD(model.parameters(), lr=0.5))
    optim_wrapper.load_state_dict(plain.state_dict())
    assert optim_wrapper.get_lr()['lr'] == [0.5]


@on_cpu
def test_state_moves_between_a_cpu_and_a_device_that_scales_the_loss():
    optim_wrapper, _ = wrapper()
    scaling, _ = wrapper()
    scaling.loss_scaler = torch.amp.GradScaler('cpu', init_scale=2.0**7, enabled=True)
    of_device, of_cpu = scaling.state_dict(), optim_wrapper.state_dict()
    assert of_device['loss_scaler']
    assert not of_cpu['loss_scaler']
    scaling.load_state_dict(of_cpu)
    assert scaling.loss_scaler.get_scale() == 2.0**7
    optim_wrapper.load_state_dict(of_device)
    assert not optim_wrapper.loss_scaler.is_enabled()
    other, _ = wrapper()
    other.loss_scaler = torch.amp.GradScaler('cpu', enabled=True)
    other.load_state_dict(scaling.state_dict())
    assert other.loss_scaler.get_scale() == 2.0**7


@on_cpu
def test_float16_on_a_cpu_is_refused_with_the_remedy():
    with pytest.raises(ValueError, match="dtype='float16' does not work on a CPU; use 'bfloat16'"):
        wrapper(dtype='float16')


def test_enable_amp_keeps_the_other_options_and_refuses_other_wrappers():
    cfg = Config(dict(optim_wrapper=dict(type='OptimWrapper', clip_grad=dict(max_norm=1))))
    enable_amp(cfg)
    assert cfg.optim_wrapper == dict(type='mmseg_ext.AmpOptimWrapper', clip_grad=dict(max_norm=1), loss_scale='dynamic')
    with pytest.raises(ValueError, match=r"optim_wrapper\.type='ApexOptimWrapper' has no mixed-precision form"):
        enable_amp(Config(dict(optim_wrapper=dict(type='ApexOptimWrapper'))))
