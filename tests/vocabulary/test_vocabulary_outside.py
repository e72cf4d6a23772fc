"""Files that a vocabulary phase reads, as a dry run sees them."""

from pathlib import Path

import pytest

from raysberta.errors import InputError
from raysberta.vocabulary.outside import MAX_LINE, check_vocabulary, lines, vocabulary_state
from raysberta.vocabulary.settings import Vocabulary
from small_models import a_phase


def with_dictionary(file: Path) -> Vocabulary:
    return a_phase(wechsel={"source": "en", "target": "ru", "dictionary": str(file)})


def test_files_are_looked_for_before_a_run_and_are_part_of_its_identity(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"phases\.trimmed\.wechsel\.dictionary: .*nowhere.* cannot be read"):
        check_vocabulary("trimmed", with_dictionary(tmp_path / "nowhere"))
    file = tmp_path / "d.tsv"
    file.write_text("a b\n")
    check_vocabulary("trimmed", with_dictionary(file))
    before = vocabulary_state(with_dictionary(file))
    file.write_text("a b\nc d\n")
    assert vocabulary_state(with_dictionary(file)) != before
    assert set(before) == {"wechsel.dictionary"} and vocabulary_state(with_dictionary(tmp_path / "nowhere"))
    assert vocabulary_state(a_phase(trim=True)) == {}
    check_vocabulary("trimmed", a_phase(trim=True))


def test_lines_come_one_at_a_time_and_have_an_end(tmp_path: Path) -> None:
    file = tmp_path / "lines"
    file.write_bytes(b"\xef\xbb\xbfone\ntwo\n" + b"x" * (MAX_LINE + 1))
    read = lines(str(file), "key")
    assert [next(read), next(read)] == ["one\n", "two\n"]
    with pytest.raises(InputError, match=r"^key: .*lines: line 3 has over 65,536 characters"):
        next(read)


def test_a_password_is_not_in_a_message() -> None:
    with pytest.raises(InputError) as told:
        next(lines("nowhere://user:hunter2@host/file.vec", "key"))
    assert "hunter2" not in str(told.value) and "host/file.vec" in str(told.value)
