import pytest
import torch
from mmengine.structures import PixelData
from mmseg.models import FCNHead
from mmseg.models.losses import CrossEntropyLoss, accuracy
from mmseg.structures import SegDataSample
from torch import Tensor
from torch.nn import functional as F

from mmseg_ext.engine.measure import peak_memory
from mmseg_ext.layers import resampling, streamed_loss
from mmseg_ext.layers.hard_pixels import hard_pixel_weight
from mmseg_ext.layers.streamed_loss import streamed_cross_entropy, streamed_pixel_losses

CLASS_WEIGHT = [0.2, 1.5, 1.0, 0.7, 2.0]


@pytest.fixture(autouse=True)
def _small_tiles(monkeypatch):
    monkeypatch.setattr(resampling, '_TILE_COLUMNS', 16)
    monkeypatch.setattr(resampling, '_CPU_TILE_BYTES', 2**12)


def example(*, ignored: bool = True, dtype: torch.dtype = torch.float32) -> tuple[Tensor, Tensor]:
    """Low-resolution logits and their labels."""
    logits = 3 * torch.randn(2, 5, 6, 9, dtype=dtype)
    target = torch.randint(5, (2, 45, 70))
    if ignored:
        target[:, :8] = 255
        target[1, :, 30:] = 255
    return logits.requires_grad_(), target


def upsampled(logits: Tensor, target: Tensor, align_corners: bool = False) -> Tensor:
    return F.interpolate(logits, size=target.shape[1:], mode='bilinear', align_corners=align_corners)


def assert_same(logits: Tensor, loss: Tensor, expected: Tensor) -> None:
    """Compare a loss and its gradient."""
    torch.testing.assert_close(loss, expected, rtol=1e-6, atol=0)
    grad, expected_grad = (torch.autograd.grad(3 * x, logits)[0] for x in (loss, expected))
    assert (grad - expected_grad).abs().max() <= 1e-5 * expected_grad.abs().max()


@pytest.mark.parametrize('align_corners', [False, True])
@pytest.mark.parametrize('avg_non_ignore', [False, True])
def test_loss_gradient_and_accuracy_are_mmsegs(avg_non_ignore, align_corners):
    logits, target = example()
    loss, accurate = streamed_cross_entropy(
        logits, target, align_corners=align_corners, avg_non_ignore=avg_non_ignore, loss_weight=0.4
    )
    full = upsampled(logits, target, align_corners)
    criterion = CrossEntropyLoss(avg_non_ignore=avg_non_ignore, loss_weight=0.4)
    assert_same(logits, loss, criterion(full, target, ignore_index=255))
    torch.testing.assert_close(accurate, accuracy(full, target, ignore_index=255)[0])
    assert loss.shape == accurate.shape == ()
    assert not accurate.requires_grad


def test_class_weights_are_mmsegs_where_no_label_is_ignored():
    logits, target = example(ignored=False)
    loss, _ = streamed_cross_entropy(logits, target, align_corners=False, class_weight=CLASS_WEIGHT)
    criterion = CrossEntropyLoss(class_weight=CLASS_WEIGHT)
    assert_same(logits, loss, criterion(upsampled(logits, target), target, ignore_index=255))


@pytest.mark.parametrize('avg_non_ignore', [False, True])
def test_ignored_labels_weigh_nothing_among_class_weights(avg_non_ignore):
    # mmseg looks the weight of label 255 up and fails (open-mmlab/mmsegmentation#3831); torch divides by this sum.
    logits, target = example()
    loss, _ = streamed_cross_entropy(
        logits, target, align_corners=False, class_weight=CLASS_WEIGHT, avg_non_ignore=avg_non_ignore
    )
    weight = torch.tensor(CLASS_WEIGHT)
    assert_same(logits, loss, F.cross_entropy(upsampled(logits, target), target, weight=weight, ignore_index=255))


@pytest.mark.parametrize('class_weight', [None, CLASS_WEIGHT])
def test_label_smoothing_is_torchs(class_weight):
    logits, target = example()
    loss, _ = streamed_cross_entropy(
        logits, target, align_corners=False, class_weight=class_weight, label_smoothing=0.1, avg_non_ignore=True
    )
    weight = None if class_weight is None else torch.tensor(class_weight)
    full = upsampled(logits, target)
    assert_same(logits, loss, F.cross_entropy(full, target, weight=weight, ignore_index=255, label_smoothing=0.1))


def test_pixel_weights_leave_the_divisor_as_mmseg_does():
    logits, target = example()
    weight = (torch.rand(target.shape) > 0.5).float()
    loss, _ = streamed_cross_entropy(logits, target, align_corners=False, pixel_weight=weight)
    criterion = CrossEntropyLoss()
    assert_same(logits, loss, criterion(upsampled(logits, target), target, weight, ignore_index=255))


def test_labels_at_the_size_of_the_logits_need_no_resize():
    logits, _ = example()
    target = torch.randint(5, (2, 6, 9))
    loss, _ = streamed_cross_entropy(logits, target, align_corners=False)
    assert_same(logits, loss, F.cross_entropy(logits, target))


def test_a_batch_of_ignored_pixels_has_no_loss_and_no_gradient():
    logits, target = example()
    target[:] = 255
    loss, accurate = streamed_cross_entropy(logits, target, align_corners=False, avg_non_ignore=True)
    assert loss == 0
    assert torch.equal(torch.autograd.grad(loss, logits)[0], torch.zeros_like(logits))
    torch.testing.assert_close(accurate, accuracy(upsampled(logits, target), target, ignore_index=255)[0])


def test_large_logits_neither_overflow_nor_vanish():
    logits = torch.tensor([500.0, -500.0, 0.0]).view(1, 3, 1, 1).requires_grad_()
    loss, accurate = streamed_cross_entropy(logits, torch.ones(1, 4, 4, dtype=torch.long), align_corners=False)
    assert loss == 1000
    assert accurate < 1e-3
    assert torch.autograd.grad(loss, logits)[0].flatten().tolist() == [1, -1, 0]


def test_first_and_second_derivatives_are_those_of_finite_differences():
    logits, target = example(dtype=torch.float64)
    logits, target = logits.detach()[:, :, :3, :4].requires_grad_(), target[:, 5:12, 26:34]
    weight = torch.rand(target.shape)

    def loss(x: Tensor) -> Tensor:
        return streamed_cross_entropy(
            x, target, align_corners=True, class_weight=CLASS_WEIGHT, label_smoothing=0.2, pixel_weight=weight
        )[0]

    assert torch.autograd.gradcheck(loss, logits)
    assert torch.autograd.gradgradcheck(loss, logits)


def test_accuracy_of_equal_logits_counts_the_first_class_alone():
    # As many classes are the largest as there are, but one is predicted (mmseg's accuracy takes one of them).
    target = torch.tensor([0, 0, 0, 1, 2, 255]).view(1, 1, 6)
    _, accuracy = streamed_cross_entropy(torch.zeros(1, 3, 1, 6), target, align_corners=False)
    torch.testing.assert_close(accuracy.item(), 60.0)


@pytest.mark.parametrize('dtype', [torch.uint8, torch.int16, torch.int32])
def test_labels_of_any_integer_type_are_taken(dtype):
    logits, target = example()
    expected = streamed_cross_entropy(logits, target, align_corners=False)
    torch.testing.assert_close(streamed_cross_entropy(logits, target.to(dtype), align_corners=False), expected)
    losses = streamed_pixel_losses(logits, target.to(dtype), align_corners=False)
    torch.testing.assert_close(losses, streamed_pixel_losses(logits, target, align_corners=False))


def test_a_class_that_is_masked_by_minus_infinity_costs_nothing():
    logits, target = example()
    masked = logits.detach().clone()
    masked[:, 4] = -torch.inf
    masked.requires_grad_()
    target[target == 4] = 255
    loss, accuracy = streamed_cross_entropy(masked, target, align_corners=False, avg_non_ignore=True)
    others = logits[:, :4].detach().requires_grad_()
    expected, expected_accuracy = streamed_cross_entropy(others, target, align_corners=False, avg_non_ignore=True)
    torch.testing.assert_close((loss, accuracy), (expected, expected_accuracy))
    grad, expected_grad = torch.autograd.grad(loss, masked)[0], torch.autograd.grad(expected, others)[0]
    torch.testing.assert_close(grad[:, :4], expected_grad)
    assert (grad[:, 4] == 0).all()


@pytest.mark.parametrize('options', [{}, dict(class_weight=CLASS_WEIGHT, label_smoothing=0.2, avg_non_ignore=True)])
def test_plain_operators_give_the_same(options):
    logits, target = example()
    weight = torch.rand(target.shape)
    expected = streamed_cross_entropy(logits, target, align_corners=True, pixel_weight=weight, **options)
    rule = streamed_loss._rule(
        logits, target, 255, options.get('class_weight'), options.get('label_smoothing', 0.0)
    )._replace(avg_non_ignore=options.get('avg_non_ignore', False))
    results = streamed_loss._plain_cross_entropy(logits, target, weight, rule, True)
    torch.testing.assert_close(results, expected)
    grads = [torch.autograd.grad(loss, logits)[0] for loss, _ in (results, expected)]
    torch.testing.assert_close(*grads, rtol=1e-5, atol=1e-7)


def test_transforms_and_tensors_without_numbers_get_plain_operators():
    logits, target = example(dtype=torch.float64)

    def loss(x: Tensor, y: Tensor) -> Tensor:
        return streamed_cross_entropy(x, y, align_corners=False, avg_non_ignore=True)[0]

    expected = torch.autograd.grad(loss(logits, target), logits)[0]
    logits = logits.detach()
    torch.testing.assert_close(torch.func.grad(loss)(logits, target), expected, rtol=1e-6, atol=1e-12)
    direction = torch.randn_like(logits)
    _, tangent = torch.func.jvp(lambda x: loss(x, target), (logits,), (direction,))
    torch.testing.assert_close(tangent, (expected * direction).sum(), rtol=1e-6, atol=1e-12)
    each = torch.func.vmap(lambda x, y: loss(x[None], y[None]))(logits, target)
    torch.testing.assert_close(each, torch.stack([loss(x[None], y[None]) for x, y in zip(logits, target, strict=True)]))
    assert loss(logits.to('meta'), target.to('meta')).shape == ()
    compiled = torch.compile(loss, backend='eager', fullgraph=True)
    torch.testing.assert_close(compiled(logits, target), loss(logits, target))


def test_gradients_accumulate_over_two_backward_passes():
    logits, target = example()
    loss, _ = streamed_cross_entropy(logits, target, align_corners=False)
    loss.backward(retain_graph=True)
    once = logits.grad.clone()
    loss.backward()
    assert torch.equal(logits.grad, 2 * once)


def test_autocast_changes_nothing_and_the_gradient_has_the_dtype_of_the_logits():
    logits, target = example(dtype=torch.bfloat16)
    losses = []
    for enabled in (False, True):
        with torch.autocast('cpu', torch.bfloat16, enabled=enabled):
            losses.append(streamed_cross_entropy(logits, target, align_corners=False)[0])
    assert losses[0].dtype == torch.float32
    assert torch.equal(*losses)
    torch.testing.assert_close(
        losses[0], F.cross_entropy(upsampled(logits.float(), target), target, reduction='none', ignore_index=255).mean()
    )
    assert torch.autograd.grad(losses[1], logits)[0].dtype == torch.bfloat16


def test_memory_is_below_a_tenth_of_mmsegs(monkeypatch):
    monkeypatch.setattr(resampling, '_TILE_COLUMNS', 128)
    monkeypatch.setattr(resampling, '_CPU_TILE_BYTES', 2**20)
    logits = torch.randn(1, 150, 32, 64, requires_grad=True)
    target = torch.randint(150, (1, 256, 512))

    def streamed():
        torch.autograd.grad(streamed_cross_entropy(logits, target, align_corners=False)[0], logits)

    def plain():
        torch.autograd.grad(CrossEntropyLoss()(upsampled(logits, target), target), logits)

    assert peak_memory(streamed, logits.device) < peak_memory(plain, logits.device) / 10


def head(sampler: dict, losses: dict | list) -> FCNHead:
    return FCNHead(
        in_channels=8,
        channels=8,
        num_convs=0,
        concat_input=False,
        num_classes=5,
        sampler=dict(type='OHEMPixelSampler', **sampler),
        loss_decode=losses,
    )


@pytest.mark.parametrize('min_kept', [100, 2000, 10**6])
@pytest.mark.parametrize('thresh', [None, 0.3, 0.9])
def test_hard_pixels_and_their_losses_are_those_of_a_head_with_mmsegs_sampler(thresh, min_kept):
    rules = [dict(loss_weight=1.0), dict(class_weight=CLASS_WEIGHT, loss_weight=0.4)]
    # mmseg can't divide by class weights where labels are ignored.
    logits, target = example(ignored=False, dtype=torch.float64)
    theirs = head(
        dict(thresh=thresh, min_kept=min_kept),
        [dict(type='CrossEntropyLoss', loss_name=f'loss_{i}', **rule) for i, rule in enumerate(rules)],
    )
    samples = [SegDataSample(gt_sem_seg=PixelData(data=labels[None])) for labels in target]
    expected = theirs.loss_by_feat(logits, samples)

    if thresh is None:
        hardness = sum(
            rule['loss_weight']
            * streamed_pixel_losses(logits, target, align_corners=False, class_weight=rule.get('class_weight'))
            for rule in rules
        )
    else:
        hardness = streamed_pixel_losses(logits, target, align_corners=False)
    weight = hard_pixel_weight(hardness, target, min_kept=min_kept, thresh=thresh)
    for i, rule in enumerate(rules):
        loss, accurate = streamed_cross_entropy(logits, target, align_corners=False, pixel_weight=weight, **rule)
        assert_same(logits, loss, expected[f'loss_{i}'])
        torch.testing.assert_close(accurate, expected['acc_seg'][0].double())


@pytest.mark.parametrize('thresh', [None, 0.3])
def test_ignored_pixels_are_never_hard(thresh):
    logits, target = example(dtype=torch.float64)
    losses = streamed_pixel_losses(logits, target, align_corners=False)
    weight = hard_pixel_weight(losses, target, min_kept=500, thresh=thresh)
    sampler = head(dict(thresh=thresh, min_kept=500), dict(type='CrossEntropyLoss')).sampler
    assert torch.equal(weight, sampler.sample(upsampled(logits, target), target[:, None]))
    assert weight.sum() >= 1000
    assert (weight[target == 255] == 0).all()
    assert (losses[target == 255] == 0).all()


def test_targets_that_do_not_fit_are_refused():
    logits, target = example()
    with pytest.raises(ValueError, match=r'target of shape \(1, 45, 70\) does not fit logits of shape \(2, 5, 6, 9\)'):
        streamed_cross_entropy(logits, target[:1], align_corners=False)
    with pytest.raises(ValueError, match='class_weight has 2 entries for 5 classes'):
        streamed_cross_entropy(logits, target, align_corners=False, class_weight=[1, 2])
    target[0, 0, :3] = torch.tensor([5, -1, 7])
    with pytest.raises(ValueError, match=r'labels \[-1, 5, 7\], which are neither in \[0, 4\] nor ignore_index=255'):
        streamed_cross_entropy(logits, target, align_corners=False)
    with pytest.raises(ValueError, match='min_kept=1 must be 2 or more'):
        hard_pixel_weight(torch.zeros(1, 2, 2), torch.zeros(1, 2, 2), min_kept=1)
