"""What a run begins from, and how it goes on."""

import datetime
import re
import resource

import pytest
import torch
from mmengine.config import ConfigDict
from mmengine.hooks import CheckpointHook as PlainCheckpointHook
from mmengine.optim import AmpOptimWrapper
from mmengine.runner import Runner as PlainRunner

from benchmarks.tiny_run import ITERATIONS, TinyPoints, config, train
from mmseg_ext.checkpoints import load_file
from mmseg_ext.engine.hooks import CheckpointHook
from mmseg_ext.engine.latest import number_pattern
from mmseg_ext.engine.runner import Runner

LR = 'optim_wrapper.optimizer.lr'
SHORT = {'train_cfg.max_iters': 4, 'param_scheduler': [dict(type='PolyLR', begin=0, end=4, power=0.9, by_epoch=False)]}


def log_of(work_dir) -> str:
    return '\n'.join(path.read_text() for path in sorted(work_dir.glob('*/*.log')))


def rates(work_dir, steps: range) -> list[float]:
    """Learning rates that a training without a break has after these iterations."""
    return [load_file(work_dir / f'iter_{step}.pth')['optimizer']['param_groups'][0]['lr'] for step in steps]


@pytest.fixture
def logged() -> dict:
    return {'log_level': 'INFO', 'default_hooks.checkpoint.max_keep_ckpts': -1}


# --- which file


@pytest.mark.parametrize(
    'hook',
    [
        {'filename_tmpl': 'ckpt_{}.pth'},
        {'filename_tmpl': 'weights-{:06d}-of-run.pth'},
        {'out_dir': 'elsewhere'},
        {'out_dir': 'elsewhere', 'filename_tmpl': 'c{}.pth'},
    ],
)
@pytest.mark.parametrize('record', ['there', 'missing', 'empty', 'stale'])
def test_whatever_the_hooks_settings_the_newest_checkpoint_is_found(tmp_path, logged, hook, record):
    hook = {key: str(tmp_path / value) if key == 'out_dir' else value for key, value in hook.items()}
    changes = {**logged, **{f'default_hooks.checkpoint.{key}': value for key, value in hook.items()}}
    train(tmp_path / 'work', **changes, **{'train_cfg.max_iters': 3})
    last = tmp_path / 'work/last_checkpoint'
    if record == 'missing':
        last.unlink()
    elif record != 'there':
        last.write_text('' if record == 'empty' else str(tmp_path / 'gone.pth'))
    runner = train(tmp_path / 'work', **changes, **{'train_cfg.max_iters': 4})
    assert runner.iter == 4
    assert re.search(r'resuming from .* at iteration 3', log_of(tmp_path / 'work'))


def test_the_file_that_last_checkpoint_names_comes_before_newer_ones(tmp_path, logged):
    train(tmp_path, **logged, **{'train_cfg.max_iters': 4})
    (tmp_path / 'last_checkpoint').write_text(str(tmp_path / 'iter_2.pth'))
    train(tmp_path, **logged, **{'train_cfg.max_iters': 4})
    assert 'iter_2.pth at iteration 2' in log_of(tmp_path)


def test_a_work_directory_that_was_moved_is_resumed_where_it_is(tmp_path, logged):
    train(tmp_path / 'a', **logged, **{'train_cfg.max_iters': 3})
    (tmp_path / 'a').rename(tmp_path / 'b')
    train(tmp_path / 'b', **logged, **{'train_cfg.max_iters': 4})
    assert f'resuming from {tmp_path}/b/iter_3.pth at iteration 3' in log_of(tmp_path / 'b')


def test_half_written_and_foreign_files_are_not_taken_for_checkpoints(tmp_path, logged):
    for name in ('.iter_9.0123456789abcdef0123456789abcdef.part.pth', 'best_loss_iter_9.pth', 'iter_x.pth', 'iter_9'):
        (tmp_path / name).touch()
    runner = train(tmp_path, **logged, **{'train_cfg.max_iters': 1})
    assert runner.iter == 1
    assert f'nothing to resume in {tmp_path}: beginning at iteration 1' in log_of(tmp_path)


def test_without_anything_to_resume_load_from_stays(tmp_path, logged):
    train(tmp_path / 'a', **{'train_cfg.max_iters': 2})
    source = str(tmp_path / 'a/iter_2.pth')
    runner = train(tmp_path / 'b', load_from=source, **logged, **{'train_cfg.max_iters': 1, LR: 0.0})
    assert f'nothing to resume in {tmp_path}/b: beginning from {source}' in log_of(tmp_path / 'b')
    expected = load_file(source)['state_dict']['net.0.weight']
    assert torch.equal(load_file(tmp_path / 'b/iter_1.pth')['ema_state_dict']['module.net.0.weight'], expected)
    assert runner.iter == 1


def test_what_there_is_to_resume_comes_before_load_from(tmp_path, logged):
    train(tmp_path / 'a', **logged, **{'train_cfg.max_iters': 2})
    train(tmp_path / 'a', load_from=str(tmp_path / 'gone.pth'), **logged, **{'train_cfg.max_iters': 3})
    assert f'resuming from {tmp_path}/a/iter_2.pth at iteration 2' in log_of(tmp_path / 'a')


@pytest.mark.parametrize('template', ['iter_{}.pth', 'a.b{:03d}+(x).pth', '{}.pth'])
def test_a_templates_pattern_finds_its_numbers_and_nothing_else(template):
    pattern = number_pattern(template)
    assert all(int(re.fullmatch(pattern, template.format(n))[1]) == n for n in (0, 7, 12345))
    assert not re.fullmatch(pattern, template.format(7) + 'x')
    assert not re.fullmatch(pattern, 'x' + template.format(7))


# --- what is refused


@pytest.fixture
def trained(tmp_path):
    train(tmp_path / 'trained', **{'train_cfg.max_iters': 3})
    return tmp_path / 'trained/iter_3.pth'


def changed(source, target, change) -> str:
    content = load_file(source)
    change(content)
    torch.save(content, target)
    return str(target)


@pytest.mark.parametrize(
    ('change', 'message'),
    [
        (lambda c: c.pop('optimizer'), 'it has no optimizer. To begin a new training from its weights use --load-from'),
        (lambda c: c.pop('meta'), r'no meta\.iter and no meta\.epoch'),
        (lambda c: c['meta'].update(iter=-1), r'no meta\.iter'),
        (lambda c: c['meta'].update(iter='7'), r'no meta\.iter'),
        (lambda c: c['optimizer'].update(param_groups=3), 'has no param_groups'),
        (lambda c: c['optimizer']['param_groups'].append(dict(params=[])), '2 groups of 6 parameters, .* 1 of 6'),
        (lambda c: c['optimizer']['param_groups'][0].pop('betas'), 'has no betas, as AdamW has'),
        (lambda c: c['optimizer']['state'][0].update(exp_avg=torch.zeros(3)), r'exp_avg of parameter 0 is \(3,\)'),
        (lambda c: c['state_dict'].pop('net.0.weight'), r'net\.0\.weight'),
    ],
)
def test_a_checkpoint_that_no_training_can_go_on_from_is_refused_with_the_reason(tmp_path, trained, change, message):
    source = changed(trained, tmp_path / 'changed.pth', change)
    with pytest.raises(ValueError, match=rf'(?s)changed\.pth.*{message}'):
        train(tmp_path / 'work', resume=True, load_from=source)
    assert not list((tmp_path / 'work').glob('*.pth'))


@pytest.mark.parametrize(
    'damage',
    [
        lambda c: c.update(training_state=dict(validated=True)),
        lambda c: c['training_state'].update(hooks=3),
        lambda c: c['training_state'].update(hooks=[('EarlyStoppingHook', dict(wait_count='x', best_score=1.0))]),
        lambda c: c['training_state'].update(hooks=[('CheckpointHook', [])]),
        lambda c: c['training_state'].update(gradients=[{'net.0.weight': torch.zeros(2)}]),
        lambda c: c.update(message_hub=dict(log_scalars=3)),
        lambda c: c.update(param_schedulers=[1, 2]),
        lambda c: c['optimizer'].update(state=[]),
    ],
)
def test_a_damaged_training_state_is_refused_with_one_sentence(tmp_path, trained, damage):
    source = changed(trained, tmp_path / 'changed.pth', damage)
    with pytest.raises(ValueError, match=r'changed\.pth: its (training state|optimizer).*--load-from') as caught:
        train(tmp_path / 'work', resume=True, load_from=source)
    assert '\n' not in str(caught.value)


def test_the_best_checkpoint_is_not_one_to_resume_from(tmp_path, trained):
    best = next(trained.parent.glob('best_*.pth'))
    with pytest.raises(ValueError, match='no optimizer'):
        train(tmp_path / 'work', resume=True, load_from=str(best))


def test_weights_of_another_size_are_refused_before_data_is_read(tmp_path, trained):
    with pytest.raises(ValueError, match=r'net\.0\.weight: \(16, 8\) in the file, \(9, 8\) in the model'):
        train(
            tmp_path / 'work', resume=True, load_from=str(trained), **{'model.hidden': 9, 'train_dataloader.x': 'bad'}
        )


# --- what a file says of other files, and of code


@pytest.mark.parametrize('name', ['best_ckpt', 'keep_ckpt_ids', 'removals', 'last_ckpt'])
def test_a_checkpoint_cannot_have_other_files_removed(tmp_path, trained, name):
    victim = tmp_path / 'thesis.pth'
    victim.touch()

    def aim(content: dict) -> None:
        info = content['message_hub']['runtime_info']
        if name == 'removals':
            content['training_state']['hooks'] = [
                ('CheckpointHook', dict(step=3, removals=['../thesis.pth', str(victim)]))
            ]
        elif name == 'keep_ckpt_ids':
            info[name] = ['/../../thesis', '../thesis'] + [1] * 5
        else:
            info[name] = str(victim)
        info['best_score'] = float('inf')  # so that the next one is better

    source = changed(trained, tmp_path / 'changed.pth', aim)
    runner = train(tmp_path / 'work', resume=True, load_from=source, **{'train_cfg.max_iters': 9})
    assert runner.iter == 9
    assert victim.exists()


def test_resuming_another_runs_checkpoint_leaves_this_folders_files(tmp_path, trained):
    train(tmp_path / 'mine', **{'default_hooks.checkpoint.max_keep_ckpts': -1, 'train_cfg.max_iters': 5})
    best = {path.name for path in (tmp_path / 'mine').glob('best_*')}
    train(tmp_path / 'mine', resume=True, load_from=str(trained), **{'default_hooks.checkpoint.max_keep_ckpts': 1})
    left = {path.name for path in (tmp_path / 'mine').iterdir()}
    assert best | {'iter_1.pth', 'iter_2.pth'} <= left


def test_a_file_in_the_own_folder_can_have_no_newer_files_removed(tmp_path):
    train(tmp_path, **{'train_cfg.max_iters': 3})
    for name in ('iter_100.pth', 'best_loss_iter_99.pth', 'notes.txt'):
        (tmp_path / name).touch()

    def aim(content: dict) -> None:
        content['message_hub']['runtime_info'].update(keep_ckpt_ids=[100, 99, 98], best_score='x')
        removals = ['iter_100.pth', 'best_loss_iter_99.pth', 'notes.txt', 'last_checkpoint']
        content['training_state']['hooks'] = [('CheckpointHook', dict(step=3, removals=removals))]

    source = changed(tmp_path / 'iter_3.pth', tmp_path / 'iter_3.pth', aim)
    train(tmp_path, resume=True, load_from=source)
    assert {'iter_100.pth', 'best_loss_iter_99.pth', 'notes.txt'} <= {path.name for path in tmp_path.iterdir()}


def test_the_best_checkpoint_of_another_work_directory_stays_there(tmp_path, trained):
    source = changed(
        trained, tmp_path / 'changed.pth', lambda c: c['message_hub']['runtime_info'].update(best_score=9.0)
    )
    before = {path.name for path in trained.parent.glob('best_*')}
    train(tmp_path / 'work', resume=True, load_from=source, **{'train_cfg.max_iters': 6})
    assert {path.name for path in trained.parent.glob('best_*')} == before
    assert list((tmp_path / 'work').glob('best_*.pth'))


def test_the_config_in_a_checkpoint_is_not_looked_at(tmp_path, trained):
    trace = tmp_path / 'trace'

    def poison(content: dict) -> None:
        content['meta']['config'] = content['meta']['cfg'] = f'import pathlib\npathlib.Path({str(trace)!r}).touch()\n'

    source = changed(trained, tmp_path / 'changed.pth', poison)
    assert train(tmp_path / 'work', resume=True, load_from=source).iter == ITERATIONS
    assert not trace.exists()


# --- what breaks and does not break a run


EPOCHS = {
    'train_cfg': dict(type='EpochBasedTrainLoop', max_epochs=2, val_interval=1, _delete_=True),
    'train_dataloader.sampler': dict(type='DefaultSampler', shuffle=True, _delete_=True),
}


@pytest.mark.parametrize('batch_size', [4, 6])
def test_an_epoch_based_run_goes_on_with_whole_epochs_after_another_batch_size(tmp_path, logged, batch_size):
    train(tmp_path, **logged, **EPOCHS, **{'default_hooks.checkpoint.by_epoch': True})
    changes = {**EPOCHS, 'train_cfg': dict(EPOCHS['train_cfg'], max_epochs=4)}
    runner = train(
        tmp_path, **logged, **changes,
        **{'default_hooks.checkpoint.by_epoch': True, 'train_dataloader.batch_size': batch_size},
    )  # fmt: skip
    assert runner.epoch == 4
    assert runner.iter == 2 * 4 + 2 * -(-11 // batch_size)


def test_the_middle_of_an_epoch_of_another_length_is_its_beginning_and_that_is_said(tmp_path, logged):
    train(tmp_path, **logged, **EPOCHS)
    runner = train(
        tmp_path, resume=True, load_from=str(tmp_path / 'iter_6.pth'), **logged, **EPOCHS,
        **{'train_dataloader.batch_size': 6},
    )  # fmt: skip
    assert runner.iter == 6 + 2
    assert 'not as it was: the place in epoch 2, which has 2 batches now: it begins anew' in log_of(tmp_path)


def test_a_config_dict_in_the_data_sets_metainfo_does_not_make_checkpoints_that_cannot_be_read(tmp_path, monkeypatch):
    monkeypatch.setattr(TinyPoints, 'metainfo', dict(classes=('a',), names=ConfigDict(a='b')), raising=False)
    train(tmp_path, **{'train_cfg.max_iters': 2})
    assert train(tmp_path, **{'train_cfg.max_iters': 3}).iter == 3


def test_a_run_whose_checkpoints_hold_more_than_data_says_so_when_it_writes_the_first(tmp_path, logged, monkeypatch):
    monkeypatch.setattr(TinyPoints, 'metainfo', dict(classes=('a',), since=datetime.date(2020, 1, 1)), raising=False)
    train(tmp_path, **logged, **{'train_cfg.max_iters': 2})
    assert log_of(tmp_path).count('this run can not be resumed as it is') == 1
    assert 'datetime.date' in log_of(tmp_path)


def test_a_stopped_training_stays_stopped_until_its_criterion_is_another(tmp_path, logged):
    def stop(patience: int) -> dict:
        return {
            **logged,
            'custom_hooks': [dict(type='EarlyStoppingHook', monitor='loss', patience=patience, min_delta=1.0)],
        }

    stopped = train(tmp_path, **stop(1)).iter
    assert stopped < ITERATIONS
    assert train(tmp_path, **stop(1)).iter == stopped
    assert f'which was stopped early at iteration {stopped}; to go on change the patience' in log_of(tmp_path)
    assert train(tmp_path, **stop(50)).iter == ITERATIONS
    assert 'the training goes on' in log_of(tmp_path)


def test_another_optimizer_of_the_same_settings_is_refused(tmp_path, trained):
    with pytest.raises(ValueError, match='it is AdamW, not Adam'):
        train(tmp_path / 'work', resume=True, load_from=str(trained), **{'optim_wrapper.optimizer.type': 'Adam'})


def test_a_scaled_pending_gradient_is_saved_without_its_scale(tmp_path):
    runner = train(tmp_path, **{'train_cfg.max_iters': 4})
    parameter = runner.model.net[0].bias
    for scale, expected in ((1.0, 3.0), (4.0, 0.75)):
        runner.optim_wrapper._inner_count = 1
        parameter.grad = torch.full_like(parameter, 3.0)
        if scale != 1:
            runner.optim_wrapper.__class__ = AmpOptimWrapper
            runner.optim_wrapper.loss_scaler = torch.amp.GradScaler('cpu', init_scale=scale, enabled=True)
            runner.optim_wrapper.loss_scaler._lazy_init_scale_growth_tracker(torch.device('cpu'))
        runner.save_checkpoint(str(tmp_path), 'mid.pth', by_epoch=False)
        saved = load_file(tmp_path / 'mid.pth')['training_state']['gradients'][0]['net.0.bias']
        assert (saved == expected).all()


# --- schedules


def schedule(end: int) -> dict:
    return {
        'train_cfg.max_iters': end,
        'param_scheduler': [
            dict(type='LinearLR', start_factor=0.1, begin=0, end=2, by_epoch=False),
            dict(type='PolyLR', begin=2, end=end, power=0.9, eta_min=1e-6, by_epoch=False),
        ],
    }


def test_a_longer_schedule_goes_on_as_if_it_had_been_the_schedule_from_the_start(tmp_path, logged):
    train(tmp_path / 'long', **logged, **schedule(9))
    train(tmp_path / 'short', **logged, **schedule(4))
    train(tmp_path / 'short', **logged, **schedule(9))
    assert rates(tmp_path / 'short', range(5, 10)) == rates(tmp_path / 'long', range(5, 10))
    assert 'the schedule has changed (PolyLR.end 4, now 9): iteration 5 goes on along the new one' in log_of(
        tmp_path / 'short'
    )


def test_more_iterations_under_a_schedule_that_has_ended_are_warned_of(tmp_path, logged):
    train(tmp_path, **logged, **schedule(4))
    train(tmp_path, **logged, **{**schedule(4), 'train_cfg.max_iters': 6})
    assert 'the last schedule ends at iteration 4, the training at 6' in log_of(tmp_path)
    assert 'schedule has changed' not in log_of(tmp_path)


def test_another_learning_rate_counts_from_where_the_run_goes_on(tmp_path, logged):
    train(tmp_path / 'high', **logged, **schedule(8), **{LR: 0.5})
    train(tmp_path / 'work', **logged, **{**schedule(8), 'train_cfg.max_iters': 4})
    train(tmp_path / 'work', **logged, **schedule(8), **{LR: 0.5})
    assert rates(tmp_path / 'work', range(5, 9)) == rates(tmp_path / 'high', range(5, 9))


def test_a_learning_rate_without_a_schedule_is_the_configs(tmp_path, logged):
    constant = {'param_scheduler': None}
    train(tmp_path, **logged, **constant, **{'train_cfg.max_iters': 2})
    train(tmp_path, **logged, **constant, **{'train_cfg.max_iters': 3, LR: 0.5})
    assert rates(tmp_path, range(2, 4)) == [0.01, 0.5]
    assert 'lr 0.01, now 0.5' in log_of(tmp_path)


def test_an_unchanged_schedule_is_restored_without_a_word(tmp_path, logged):
    train(tmp_path, **logged, **{**schedule(6), 'train_cfg.max_iters': 3})
    train(tmp_path, **logged, **schedule(6))
    assert 'schedule' not in '\n'.join(
        line for line in log_of(tmp_path).splitlines() if ' - ' in line and 'WARN' in line
    )


def test_epoch_schedules_follow_by_epochs(tmp_path, logged):
    def epochs(count: int) -> dict:
        return {
            **logged,
            'train_cfg': dict(type='EpochBasedTrainLoop', max_epochs=count, val_interval=1, _delete_=True),
            'train_dataloader.sampler': dict(type='DefaultSampler', shuffle=True, _delete_=True),
            'default_hooks.checkpoint.by_epoch': True,
            'param_scheduler': [
                dict(type='MultiStepLR', milestones=[1, count - 1], gamma=0.5, by_epoch=True),
                dict(type='LinearLR', start_factor=0.5, begin=0, end=6, by_epoch=False),
            ],
        }

    train(tmp_path / 'long', **epochs(4))
    train(tmp_path / 'short', **epochs(3))
    train(tmp_path / 'short', **epochs(4))

    def rate(folder):
        return load_file(tmp_path / folder / 'epoch_4.pth')['optimizer']['param_groups'][0]['lr']

    assert rate('short') == rate('long')


def test_an_epoch_schedule_is_stepped_once_at_the_epochs_end_where_a_checkpoint_was_written_before(tmp_path, logged):
    def steps(milestones: list[int], epochs: int = 4) -> dict:
        return {
            **logged, **EPOCHS, 'train_cfg': dict(EPOCHS['train_cfg'], max_epochs=epochs),
            'param_scheduler': [dict(type='MultiStepLR', milestones=milestones, gamma=0.1, by_epoch=True)],
        }  # fmt: skip

    train(tmp_path / 'whole', **steps([1, 2, 3]))
    train(tmp_path / 'part', **steps([2]))
    train(tmp_path / 'part', resume=True, load_from=str(tmp_path / 'part/iter_4.pth'), **steps([1, 2, 3]))
    assert rates(tmp_path / 'part', range(5, 17)) == rates(tmp_path / 'whole', range(5, 17))


def test_without_its_schedule_a_momentum_is_the_configs(tmp_path, logged):
    schedule = [dict(type='LinearMomentum', start_factor=0.5, begin=0, end=12, by_epoch=False)]
    train(tmp_path, **logged, **{'param_scheduler': schedule, 'train_cfg.max_iters': 3})
    train(tmp_path, **logged, **{'param_scheduler': None, 'train_cfg.max_iters': 4})
    assert load_file(tmp_path / 'iter_4.pth')['optimizer']['param_groups'][0]['betas'][0] == 0.9


def test_a_schedule_that_goes_by_metrics_goes_on_as_it_was_with_a_warning(tmp_path, logged):
    def plateau(factor: float) -> dict:
        return {
            'train_cfg': dict(type='EpochBasedTrainLoop', max_epochs=2, val_interval=1, _delete_=True),
            'train_dataloader.sampler': dict(type='DefaultSampler', shuffle=True, _delete_=True),
            'default_hooks.checkpoint.by_epoch': True,
            'param_scheduler': [dict(type='ReduceOnPlateauLR', monitor='loss', rule='less', factor=factor, patience=0)],
        }

    train(tmp_path, **logged, **plateau(0.5))
    train(tmp_path, **logged, **plateau(0.1), **{'train_cfg.max_epochs': 3})
    assert 'goes by validations, which are not repeated' in log_of(tmp_path)


def test_a_onecycle_schedule_whose_state_holds_a_function_is_saved_and_resumed(tmp_path, logged):
    changes = {**logged, 'param_scheduler': [dict(type='OneCycleLR', eta_max=0.1, total_steps=8, by_epoch=False)]}
    train(tmp_path / 'whole', **changes, **{'train_cfg.max_iters': 8})
    train(tmp_path / 'work', **changes, **{'train_cfg.max_iters': 5})
    train(tmp_path / 'work', **changes, **{'train_cfg.max_iters': 8})
    assert rates(tmp_path / 'work', range(6, 9)) == rates(tmp_path / 'whole', range(6, 9))


def test_a_finished_training_says_so(tmp_path, logged):
    train(tmp_path, **logged, **{'train_cfg.max_iters': 2})
    train(tmp_path, **logged, **{'train_cfg.max_iters': 2})
    assert 'this training has ended, after 2 iterations' in log_of(tmp_path)


# --- seeds, hooks, mmengine's own checkpoints, disks


def test_a_run_without_a_seed_draws_one_that_its_config_says_and_its_resumed_part_has(tmp_path):
    first = train(tmp_path, randomness=dict(), **{'train_cfg.max_iters': 1})
    config_file = next(tmp_path.glob('*.py')).read_text()
    assert f'seed={first.seed}' in config_file
    second = train(tmp_path, randomness=dict(), **{'train_cfg.max_iters': 2})
    assert second.seed == first.seed


def test_another_seed_in_the_config_is_not_used_and_that_is_said(tmp_path, logged):
    train(tmp_path, **logged, **{'train_cfg.max_iters': 1})
    runner = train(tmp_path, **logged, **{'train_cfg.max_iters': 2, 'randomness.seed': 5})
    assert runner.seed == 1
    assert 'randomness.seed=5 is not used' in log_of(tmp_path)


def test_mmengines_checkpoint_hook_is_replaced_by_ours_and_a_users_own_is_not(tmp_path):
    class Own(PlainCheckpointHook):
        pass

    cfg = config(tmp_path, default_scope='mmengine', **{'model.type': 'mmseg_ext.TinyNet'})
    for key in ('train_dataloader', 'val_dataloader'):
        cfg[key].dataset.type = 'mmseg_ext.TinyPoints'
    cfg.val_evaluator.type = 'mmseg_ext.TinyError'
    kinds = [type(hook) for hook in Runner.from_cfg(cfg).hooks]
    assert CheckpointHook in kinds
    assert PlainCheckpointHook not in kinds
    runner = Runner.from_cfg(cfg)
    runner.register_hook(Own(by_epoch=False))
    assert Own in [type(hook) for hook in runner.hooks]


def test_a_checkpoint_of_mmengines_runner_is_resumed(tmp_path):
    cfg = config(tmp_path / 'theirs', **{'train_cfg.max_iters': 3, 'param_scheduler.1.end': 6})
    cfg.default_hooks.checkpoint.type = 'mmengine.CheckpointHook'
    PlainRunner.from_cfg(cfg).train()
    source = str(tmp_path / 'theirs/iter_3.pth')
    assert 'training_state' not in load_file(source)
    runner = train(
        tmp_path / 'ours', resume=True, load_from=source, **{'train_cfg.max_iters': 6, 'param_scheduler.1.end': 6}
    )
    assert runner.iter == 6


def test_a_checkpoint_of_ours_is_resumed_by_mmengines_runner(tmp_path):
    from mmseg_ext.checkpoints import safe_loading

    train(tmp_path / 'ours', **{'train_cfg.max_iters': 3})
    cfg = config(tmp_path / 'theirs', **{'train_cfg.max_iters': 4})
    cfg.resume, cfg.load_from = True, str(tmp_path / 'ours/iter_3.pth')
    with safe_loading():
        runner = PlainRunner.from_cfg(cfg)
        runner.train()
    assert runner.iter == 4


def test_a_disk_that_is_full_leaves_the_last_good_checkpoint_and_names_it(tmp_path):
    train(tmp_path, **{'train_cfg.max_iters': 3})
    before = {path.name: path.stat().st_size for path in tmp_path.glob('*.pth')}
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (9000, limits[1]))
    try:
        with pytest.raises(
            OSError, match=r'checkpoint .*iter_4\.pth was not written, the last good one is .*iter_3\.pth'
        ):
            train(tmp_path)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert {path.name: path.stat().st_size for path in tmp_path.glob('*.pth')} == before
    assert not list(tmp_path.glob('.*.part*'))
    assert train(tmp_path).iter == ITERATIONS


def test_a_hook_that_saves_by_epochs_saves_nothing_at_the_validations_between(tmp_path):
    train(tmp_path, **{'default_hooks.checkpoint.by_epoch': True, 'train_cfg.max_iters': 6})
    assert {path.name for path in tmp_path.glob('*.pth') if not path.name.startswith('best')} == {'epoch_1.pth'}


def test_two_runs_of_one_second_have_logs_and_message_hubs_of_their_own(tmp_path):
    runs = [Runner.from_cfg(config(tmp_path)) for _ in range(3)]
    assert len({run.log_dir for run in runs}) == len({run.experiment_name for run in runs}) == 3
    assert len({id(run.message_hub) for run in runs}) == 3
