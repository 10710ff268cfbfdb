"""Files are there whole or not at all."""

import pytest

from mmseg_ext.files import remove_parts, written_whole


def test_what_was_written_takes_the_files_place_at_the_end_of_the_block(tmp_path):
    path = tmp_path / 'a.txt'
    path.write_text('old')
    with written_whole(path) as part:
        part.write_text('new')
        assert path.read_text() == 'old'
        assert part.parent == tmp_path
        assert part.suffix == '.txt'
    assert path.read_text() == 'new'
    assert list(tmp_path.iterdir()) == [path]


def test_an_error_leaves_the_old_file_and_nothing_else(tmp_path):
    path = tmp_path / 'a'
    path.write_text('old')
    with pytest.raises(ZeroDivisionError), written_whole(path) as part:
        part.write_text(f'half{1 / 0}')
    assert path.read_text() == 'old'
    assert list(tmp_path.iterdir()) == [path]


def test_two_writers_of_one_file_have_names_of_their_own(tmp_path):
    with written_whole(tmp_path / 'a') as one, written_whole(tmp_path / 'a') as two:
        assert one != two
        one.write_text('1')
        two.write_text('2')
    assert (tmp_path / 'a').read_text() == '1'


def test_parts_of_killed_writers_are_removed_and_nothing_else(tmp_path):
    with written_whole(tmp_path / 'a.pth') as part:
        part.write_text('whole')
        left = tmp_path / part.name
        names = {left.name, '.a.part', 'a.part', '.hidden.pth', 'b.0123456789abcdef0123456789abcdef.part'}
        for name in names - {left.name}:
            (tmp_path / name).touch()
        remove_parts(tmp_path)
        assert {path.name for path in tmp_path.iterdir()} == names - {left.name}
        part.write_text('whole')
