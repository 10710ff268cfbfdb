"""Nothing that is tried on a module shows on it."""

import threading
import warnings

import pytest
import torch
from torch import nn

from mmseg_ext.layers.live_modules import all_or_nothing, quiet_copy, run_on_black_image


def network() -> nn.Module:
    return nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.Sequential(nn.Conv2d(4, 4, 3), nn.ReLU())).double()


class Watcher:
    """Hooks of an object that can't be copied."""

    def __init__(self):
        self.lock, self.calls = threading.Lock(), 0

    def watch(self, *args):
        self.calls += 1


def watched(module: nn.Module) -> Watcher:
    watcher = Watcher()
    for part in module.modules():
        part.register_forward_pre_hook(watcher.watch)
        part.register_forward_hook(watcher.watch, with_kwargs=True, always_call=True)
        part.register_full_backward_pre_hook(watcher.watch)
        part.register_full_backward_hook(watcher.watch)
    return watcher


@pytest.mark.parametrize('share_parameters', [True, False])
def test_a_copy_fires_no_hooks_and_its_runs_change_neither_modes_nor_statistics(share_parameters):
    module = network().train()
    module[1].eval()
    watcher = watched(module)
    modes = [part.training for part in module.modules()]
    state = {key: value.clone() for key, value in module.state_dict().items()}
    twin = quiet_copy(module, share_parameters)
    assert not any(part.training for part in twin.modules())
    twin.train()
    twin(torch.randn(2, 3, 8, 8, dtype=torch.float64)).sum().backward()
    assert watcher.calls == 0
    assert [part.training for part in module.modules()] == modes
    assert all(torch.equal(value, state[key]) for key, value in module.state_dict().items())
    assert all((a is b) == share_parameters for a, b in zip(module.parameters(), twin.parameters(), strict=True))
    module(torch.randn(2, 3, 8, 8, dtype=torch.float64)).sum().backward()
    assert watcher.calls > 0


def normed(norm) -> nn.Module:
    module = network()
    with warnings.catch_warnings():
        warnings.simplefilter('ignore', FutureWarning)
        norm(module[2][0])
    return module.eval()


@pytest.mark.parametrize(
    'norm',
    [
        nn.utils.weight_norm,
        nn.utils.spectral_norm,
        nn.utils.parametrizations.weight_norm,
        nn.utils.parametrizations.spectral_norm,
    ],
)
def test_a_copy_computes_weights_as_the_original_does(norm):
    module = normed(norm)
    x = torch.randn(2, 3, 8, 8, dtype=torch.float64)
    assert torch.equal(quiet_copy(module, share_parameters=True)(x), module(x))


def test_a_lazy_layer_is_filled_in_the_copy_alone_and_draws_no_random_numbers():
    module = nn.Sequential(nn.LazyConv2d(4, 3), nn.ReLU())
    before = torch.get_rng_state()
    _, out = run_on_black_image(quiet_copy(module, share_parameters=True), 8)
    assert out.shape == (1, 4, 6, 6)
    assert isinstance(module[0].weight, nn.UninitializedParameter)
    assert torch.equal(torch.get_rng_state(), before)
    assert module(torch.randn(1, 5, 8, 8)).shape == (1, 4, 6, 6)


def test_what_cannot_be_copied_is_named():
    module = network()
    module.lock = threading.Lock()
    with pytest.raises(ValueError, match=r'Sequential cannot be copied for a trial run \(TypeError.*lock'):
        quiet_copy(module)


class LateStem(nn.Module):
    """Its stem is not the first of its convolutions."""

    def __init__(self, channels: int):
        super().__init__()
        self.lateral = nn.Conv2d(8, 8, 1)
        self.stem = nn.Conv2d(channels, 8, 3, 2, 1)

    def forward(self, x):
        return self.lateral(self.stem(x))


@pytest.mark.parametrize('channels', [1, 3, 4, 8])
def test_the_image_has_the_channels_that_the_stem_takes_wherever_that_is(channels):
    image, out = run_on_black_image(LateStem(channels), 16)
    assert image.shape == (1, channels, 16, 16)
    assert out.shape == (1, 8, 8, 8)


def test_a_module_without_convolutions_or_parameters_gets_three_channels():
    image, out = run_on_black_image(nn.AvgPool2d(2), 16)
    assert image.shape == (1, 3, 16, 16)
    assert out.shape == (1, 3, 8, 8)


@pytest.mark.parametrize('dtype', [torch.float64, torch.float32, torch.bfloat16])
@pytest.mark.parametrize('autocast', [True, False])
def test_a_run_takes_any_precision(dtype, autocast):
    with torch.autocast('cpu', enabled=autocast):
        image, _ = run_on_black_image(quiet_copy(network().to(dtype)), 16)
    assert image.dtype == dtype


def test_an_error_is_that_of_the_likeliest_image():
    class Failing(LateStem):
        def forward(self, x):
            raise RuntimeError(f'{x.shape[1]} channels')

    with pytest.raises(RuntimeError, match='8 channels'):
        run_on_black_image(Failing(3), 16)


def change_in_vain(module: nn.Module, error: type) -> None:
    with all_or_nothing([module]):
        module[0].stride, module[0].new = (2, 2), 1
        del module[0].dilation
        module[1].running_mean = torch.ones(4)
        module[2][0].weight = None
        module[2][1] = nn.Identity()
        module.append(nn.ReLU())
        module.eval()
        raise error


@pytest.mark.parametrize('error', [ValueError, KeyboardInterrupt, SystemExit])
def test_whatever_is_raised_modules_get_all_their_attributes_back(error):
    module = network()
    before = {part: (dict(vars(part)), dict(part._modules), dict(part._parameters)) for part in module.modules()}
    children, buffers = list(module.modules()), list(module.buffers())
    with pytest.raises(error):
        change_in_vain(module, error)
    assert list(module.modules()) == children
    assert all(a is b for a, b in zip(module.buffers(), buffers, strict=True))
    for part, (attributes, modules, parameters) in before.items():
        assert vars(part) == attributes
        assert part._modules == modules
        assert part._parameters == parameters


def test_without_an_error_what_was_changed_stays():
    module = network()
    with all_or_nothing([module]):
        module[0].stride = (2, 2)
        module[2][1] = nn.Identity()
    assert module[0].stride == (2, 2)
    assert isinstance(module[2][1], nn.Identity)
