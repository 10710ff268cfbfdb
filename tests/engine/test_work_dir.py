"""One training at a time in a folder, which has to be writable."""

import os
import shutil
import signal
import subprocess
import sys
import threading

import pytest

from mmseg_ext.engine.work_dir import BusyError, check_writable, held

HOLD = """
import os, sys, time
from mmseg_ext.engine.work_dir import held
with held(sys.argv[1]):
    if os.fork() == 0:  # a data worker, which outlives its parent
        time.sleep(30)
        os._exit(0)
    print('held', flush=True)
    time.sleep(30)
"""


def test_another_process_is_refused_by_name_and_a_killed_one_frees_the_folder_at_once(tmp_path):
    command = [sys.executable, '-W', 'ignore', '-c', HOLD, tmp_path]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True, start_new_session=True)
    try:
        while 'held' not in process.stdout.readline():
            assert process.poll() is None
        message = rf'{tmp_path.name} is in use by process {process.pid} on .*--work-dir'
        with pytest.raises(BusyError, match=message), held(tmp_path):
            pass
        process.kill()
        process.wait()
        with held(tmp_path):
            pass
    finally:
        os.killpg(process.pid, signal.SIGKILL)


def test_a_copy_of_the_folder_does_not_free_it_and_a_child_of_the_process_does_not_hold_it(tmp_path):
    with held(tmp_path / 'work'):
        shutil.copytree(tmp_path / 'work', tmp_path / 'copy')
        child = os.fork()
        if child == 0:
            try:
                with held(tmp_path / 'work'):
                    os._exit(1)
            except BusyError:
                os._exit(0)
        assert os.waitpid(child, 0)[1] == 0


def test_another_thread_is_refused_until_the_first_is_done(tmp_path):
    entered, done, seen = threading.Event(), threading.Event(), []

    def train():
        with held(tmp_path):
            entered.set()
            done.wait(10)

    thread = threading.Thread(target=train)
    thread.start()
    entered.wait(10)
    with pytest.raises(BusyError, match='another training in this process'), held(tmp_path / '.'):
        seen.append('inside')
    done.set()
    thread.join()
    with held(tmp_path):
        seen.append('after')
    assert seen == ['after']


def test_the_thread_that_holds_a_folder_may_enter_again_and_leaves_nothing(tmp_path):
    with held(tmp_path), held(tmp_path):
        (tmp_path / '.a.0123456789abcdef0123456789abcdef.part').touch()
    assert [path.name for path in tmp_path.iterdir()] == ['.a.0123456789abcdef0123456789abcdef.part']
    with held(tmp_path):
        assert [path.name for path in tmp_path.iterdir()] == ['.training']
    assert not list(tmp_path.iterdir())


def test_a_folder_that_cannot_be_made_is_named(tmp_path):
    (tmp_path / 'file').touch()
    with pytest.raises(OSError, match=r'work directory .*file/work cannot be written to; choose another --work-dir'):
        check_writable(tmp_path / 'file/work')


@pytest.mark.skipif(not os.path.exists('/proc/self'), reason='/proc is the folder that nobody may write to')
def test_a_folder_that_cannot_be_written_to_is_named():
    with pytest.raises(OSError, match='work directory /proc/work cannot be written to'):
        check_writable('/proc/work')
