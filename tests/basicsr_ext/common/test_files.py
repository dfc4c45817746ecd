"""Files are written whole or not at all, under any name, and a refusal names the cause and the cure."""

import os

import pytest

from basicsr_ext.common.files import SaveError, write_whole


@pytest.mark.parametrize("name", [b"x" * 255, b"caf\xe9.png", "日本.png".encode()])
def test_any_name_that_the_disk_takes_can_be_written(tmp_path, name):
    path = tmp_path / os.fsdecode(name)
    write_whole(path, b"content")
    assert path.read_bytes() == b"content" and os.listdir(os.fsencode(tmp_path)) == [name]


def test_a_text_may_hold_a_name_that_is_no_utf_8(tmp_path):
    write_whole(tmp_path / "names.json", '"caf\udce9"')
    assert (tmp_path / "names.json").read_text() == '"caf\\udce9"'


@pytest.mark.parametrize(
    ("name", "said"), [("y" * 256, "File name too long.*shorten its name"), ("folder", "directory.*another name"),
                       ("file/a.png", "choose another folder")]
)  # fmt: skip
def test_a_refusal_names_the_file_the_cause_and_the_cure(tmp_path, name, said):
    (tmp_path / "folder").mkdir()
    (tmp_path / "file").write_text("")
    with pytest.raises(SaveError, match=f"cannot save {tmp_path / name}: .*{said}") as caught:
        write_whole(tmp_path / name, b"content")
    assert not caught.value.full and sorted(os.listdir(tmp_path)) == ["file", "folder"]
