"""A file is replaced whole or not at all."""

import subprocess
import sys

import pytest

from minilab.core.files import replacing


@pytest.mark.parametrize("error", [KeyboardInterrupt, OSError])
def test_interrupted_writer_leaves_the_old_file_and_no_litter(tmp_path, error):
    path = tmp_path / "file.json"
    path.write_text("old")
    with pytest.raises(error), replacing(path) as temporary:
        temporary.write_text("ne")
        raise error
    assert path.read_text() == "old"
    assert list(tmp_path.iterdir()) == [path]


def test_killed_writer_leaves_the_old_file(tmp_path):
    path = tmp_path / "file.json"
    path.write_text("old")
    code = (
        "import os, pathlib, sys; from minilab.core.files import replacing\n"
        "with replacing(pathlib.Path(sys.argv[1])) as t: t.write_text('ne'); os._exit(9)"
    )
    assert subprocess.run([sys.executable, "-c", code, str(path)]).returncode == 9
    assert path.read_text() == "old"


def test_finished_writer_replaces_the_file_and_makes_folders(tmp_path):
    path = tmp_path / "a" / "b" / "file.json"
    for text in ("one", "two"):
        with replacing(path) as temporary:
            temporary.write_text(text)
            assert temporary.parent == path.parent  # a rename is only atomic within one file system
        assert path.read_text() == text
    assert list(path.parent.iterdir()) == [path]


def test_written_files_can_be_read_by_others(tmp_path):
    plain, path = tmp_path / "plain", tmp_path / "file"
    plain.touch()
    with replacing(path) as temporary:
        temporary.touch()
    assert path.stat().st_mode == plain.stat().st_mode
