import sys
from types import SimpleNamespace

import torch

from mmseg_ext.engine.hooks import ProgressHook


def run(hook: ProgressHook) -> None:
    for i in range(3):
        hook.after_train_iter(SimpleNamespace(iter=i, max_iters=3), i, outputs=dict(loss=torch.tensor(0.25)))


def test_on_a_terminal_one_line_is_rewritten_with_iteration_loss_and_eta(monkeypatch, capsys):
    monkeypatch.setattr(sys.stdout, 'isatty', lambda: True)
    run(ProgressHook(interval=0))
    out = capsys.readouterr().out
    assert '\n' not in out
    lines = out.split('\r\x1b[K')
    assert lines[1].startswith('train 1/3  loss 0.2500  ETA --:--')
    assert lines[3].startswith('train 3/3  loss 0.2500  ETA 0:00')


def test_in_a_file_nothing_is_written(capsys):
    run(ProgressHook(interval=0))
    assert capsys.readouterr().out == ''
