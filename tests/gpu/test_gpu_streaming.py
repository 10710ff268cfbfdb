"""Losses and labels without full-size logits, against full size on the same device."""

import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from mmseg_ext.engine.measure import peak_memory
from mmseg_ext.layers import Resampling, resampling, streamed_cross_entropy, streamed_labels, streamed_pixel_losses
from tests.gpu.heads import distance
from tests.layers.test_operator_counts import Counting

CLASSES, SIZE = 19, (120, 200)
OPTIONS = {
    'plain': {},
    'all': dict(
        class_weight=[0.5 + i / 19 for i in range(19)], label_smoothing=0.1, avg_non_ignore=True, loss_weight=0.4
    ),
}


@pytest.fixture(params=['highest', 'medium'])
def products(request):
    """What products of float32 matrices are computed in, as the user has set it: 'medium' is TF32 on a GPU."""
    torch.backends.cudnn.allow_tf32 = request.param != 'highest'
    torch.set_float32_matmul_precision(request.param)
    settings = _settings()
    yield
    assert _settings() == settings


def _settings() -> tuple:
    return (
        torch.get_float32_matmul_precision(),
        torch.backends.cuda.matmul.allow_tf32,
        torch.backends.cudnn.allow_tf32,
        torch.backends.mkldnn.matmul.fp32_precision,
    )


def example(device, dtype: torch.dtype = torch.float32) -> tuple[Tensor, Tensor]:
    """Return smooth logits at an eighth of the size, and labels."""
    logits = 5 * F.interpolate(torch.randn(2, CLASSES, 3, 4, device=device), size=(15, 25), mode='bicubic')
    logits += torch.randn_like(logits)
    target = torch.randint(CLASSES, (2, *SIZE), device=device)
    target[:, :9] = 255
    return logits.to(dtype).requires_grad_(), target


def upsampled(logits: Tensor, align_corners: bool = False) -> Tensor:
    return F.interpolate(logits, size=SIZE, mode='bilinear', align_corners=align_corners)


def plain_loss(logits: Tensor, target: Tensor, align_corners: bool, **options) -> Tensor:
    """torch's own at full size, in float64."""
    weight = options.get('class_weight')
    losses = F.cross_entropy(
        upsampled(logits.double(), align_corners),
        target,
        weight if weight is None else logits.new_tensor(weight, dtype=torch.float64),
        ignore_index=255,
        label_smoothing=options.get('label_smoothing', 0),
        reduction='mean' if options.get('avg_non_ignore') else 'sum',
    )
    losses = losses if options.get('avg_non_ignore') else losses / target.numel()
    return losses * options.get('loss_weight', 1)


@pytest.mark.parametrize('options', OPTIONS)
@pytest.mark.parametrize('align_corners', [False, True])
def test_loss_and_gradient_are_exact_whatever_products_are(align_corners, options, device, budget, products):
    logits, target = example(device)
    call = dict(align_corners=align_corners, **OPTIONS[options])
    loss, _ = streamed_cross_entropy(logits, target, **call)
    expected = plain_loss(logits, target, **call)
    grad, expected_grad = (torch.autograd.grad(3 * x, logits)[0] for x in (loss, expected))
    assert loss.device == logits.device
    assert abs(loss - expected) <= 1e-6 * expected
    assert distance(grad, expected_grad.double()) <= 1e-5


def test_autocast_changes_no_loss(device, budget):
    logits, target = example(device, torch.bfloat16)
    expected = streamed_cross_entropy(logits, target, align_corners=False)
    with torch.autocast(device.type, torch.bfloat16):
        result = streamed_cross_entropy(logits, target, align_corners=False)
    assert result[0].dtype == torch.float32
    torch.testing.assert_close(result, expected, rtol=0, atol=0)
    torch.testing.assert_close(result[0].double(), plain_loss(logits, target, False), rtol=1e-6, atol=0)
    assert torch.autograd.grad(result[0], logits)[0].dtype == torch.bfloat16


def test_accuracy_and_losses_of_pixels_are_those_of_full_size(device, budget):
    logits, target = example(device)
    full = upsampled(logits.detach())
    _, accuracy = streamed_cross_entropy(logits, target, align_corners=False)
    valid = target != 255
    expected = 100 * (full.argmax(1) == target)[valid].double().mean()
    # A pixel in a thousand may have two classes that are equal but for rounding.
    assert abs(accuracy - expected) <= 0.1
    losses = streamed_pixel_losses(logits, target, align_corners=False)
    expected = F.cross_entropy(full, target, ignore_index=255, reduction='none')
    torch.testing.assert_close(losses, expected, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize('dtype', [torch.float32, torch.bfloat16, torch.float16], ids=str)
def test_labels_are_those_of_full_size_logits_whatever_products_are(dtype, device, budget, products):
    logits = example(device, dtype)[0].detach()
    labels, probability = streamed_labels(logits, Resampling((15, 25)).resize(SIZE, False), probability=True)
    full = upsampled(logits.double())
    best = full.topk(2, dim=1).values
    assert labels.device == logits.device
    assert torch.equal(labels[best[:, 0] - best[:, 1] > 1e-4], full.argmax(1).byte()[best[:, 0] - best[:, 1] > 1e-4])
    torch.testing.assert_close(probability.double(), full.softmax(1).amax(1), rtol=0, atol=1e-5)


def test_a_chain_of_steps_is_that_of_full_size(device, budget):
    logits = example(device)[0].detach()
    chain = Resampling((15, 25)).resize(SIZE, False).crop(3, 5, 8, 0).flip(True, False).resize((77, 301), False)
    full = F.interpolate(upsampled(logits)[:, :, 3:-5, 8:].flip(-1), size=(77, 301), mode='bilinear')
    labels, _ = streamed_labels(logits, chain)
    assert (labels != full.argmax(1)).double().mean() <= 1e-3


def test_an_infinite_logit_changes_labels_where_it_is_alone(device, budget):
    logits = example(device)[0].detach()
    before, _ = streamed_labels(logits, Resampling((15, 25)).resize(SIZE, False))
    logits[0, 3, 6, 8], logits[1, 4, 2, 20] = torch.inf, -torch.inf
    after, _ = streamed_labels(logits, Resampling((15, 25)).resize(SIZE, False))
    finite = upsampled(logits).isfinite().all(1)
    assert torch.equal(after[finite], before[finite])
    assert (~finite).sum(dim=(1, 2)).tolist() == [256, 256]
    assert (after[0][~finite[0]] == 3).any()


@pytest.mark.parametrize('budget', ['tiles'], indirect=True)  # whole, it is nan as torch's interpolation has it
def test_a_class_masked_by_minus_infinity_costs_nothing_in_tiles(device, budget):
    logits, target = example(device)
    target[target == 4] = 255
    masked = logits.detach().clone()
    masked[:, 4] = -torch.inf
    masked.requires_grad_()
    others = torch.cat([logits[:, :4], logits[:, 5:]], 1).detach().requires_grad_()
    shifted = torch.where((target > 4) & (target != 255), target - 1, target)
    results = []
    for x, labels in ((masked, target), (others, shifted)):
        loss, _ = streamed_cross_entropy(x, labels, align_corners=False)
        results.append((loss, torch.autograd.grad(loss, x)[0]))
    torch.testing.assert_close(results[0][0], results[1][0])
    grad = results[0][1]
    torch.testing.assert_close(torch.cat([grad[:, :4], grad[:, 5:]], 1), results[1][1])


def test_no_full_size_logits_where_they_are_above_the_budget(device, monkeypatch):
    monkeypatch.setattr(resampling, '_TILE_BYTES', 2**19)
    logits = torch.randn(1, 150, 32, 64, device=device, requires_grad=True)
    target = torch.randint(150, (1, 256, 512), device=device)
    full = 150 * 256 * 512 * 4

    def step():
        torch.autograd.grad(streamed_cross_entropy(logits, target, align_corners=False)[0], logits)

    assert peak_memory(step, device) < full / 5
    chain = Resampling((32, 64)).resize((256, 512), False)
    assert peak_memory(lambda: streamed_labels(logits, chain), device) < full / 10


def test_no_full_size_logits_of_cityscapes_size_with_150_classes(cuda):
    logits = torch.randn(1, 150, 128, 256, device=cuda)
    chain = Resampling((128, 256)).resize((1024, 2048), False)
    assert peak_memory(lambda: streamed_labels(logits, chain), cuda) < 150 * 1024 * 2048 * 4


@pytest.mark.parametrize('options', OPTIONS)
def test_a_loss_and_its_gradient_are_few_operators_none_of_which_is_waited_for(options, cuda):
    logits, target = example(cuda)
    streamed_cross_entropy(logits, target, align_corners=False, **OPTIONS[options])
    with Counting() as counting:
        loss, _ = streamed_cross_entropy(logits, target, align_corners=False, **OPTIONS[options])
        loss.backward()
    counting.assert_few()
