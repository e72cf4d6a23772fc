from pathlib import Path

import pytest

from raysberta.corpus.packaged import docstrings
from raysberta.corpus.packaged.prose import summary_and_body
from raysberta.errors import InputError


def test_numpydoc_prose_comes_without_tables_and_examples() -> None:
    summary, body = summary_and_body(
        """Return the *cumulative* sum of ``x``.

This is a long explanation of what the function does with its input, see
:func:`~numpy.sum` and `the guide <https://example.org>`_ [1]_.

.. versionadded:: 1.2
   Something that nobody searches for.

Parameters
----------
x : array_like
    Input values.

Notes
-----
Overflow wraps around silently for integer types.

Examples
--------
>>> cumsum([1, 2])
array([1, 3])
"""
    )
    assert summary == "Return the cumulative sum of x."
    assert body == (
        "This is a long explanation of what the function does with its input, see numpy.sum and the guide. "
        "Overflow wraps around silently for integer types."
    )


def test_parameters_stand_in_where_there_is_no_prose() -> None:
    summary, body = summary_and_body(
        """Resize the picture.

Args:
    width (int): How wide the picture becomes, in pixels of the screen.
    height (int): How tall the picture becomes, in pixels of the screen.

Example::

    resize(1, 2)
"""
    )
    assert summary == "Resize the picture."
    assert body.startswith("width (int): How wide")
    assert "resize(1" not in body


def test_signature_and_parameters_are_no_summary() -> None:
    assert summary_and_body("put(src, peer) -> None\n\nPut data into the memory of a peer.")[0] == "Put data into the memory of a peer."
    assert summary_and_body("spectrogram (torch.FloatTensor): Tensor with the spectrogram.")[0] == ""


def test_first_sentence_survives_abbreviations() -> None:
    summary, body = summary_and_body("Give names, e.g. Alpha, to all groups. Then return them in order.")
    assert summary == "Give names, e.g. Alpha, to all groups."
    assert body == "Then return them in order."


def test_empty_and_strange_docstrings() -> None:
    for text in ("", "\n\n", ">>> 1\n1", "....", "====\n====", "`", "```\ncode\n"):
        assert summary_and_body(text) == ("", "")


def test_packages_are_read_and_not_imported(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    package = tmp_path / "notimported"
    (package / "tests").mkdir(parents=True)
    prose = "It explains at some length what happens to the values, and why they end up where they do."
    (package / "__init__.py").write_text(f'raise RuntimeError\n\ndef scale(x):\n    """Scale the values evenly.\n\n    {prose}\n    """\n')
    (package / "broken.py").write_text('def (:\n    """x"""\n')
    (package / "tests" / "test_it.py").write_text(f'"""Test the values evenly.\n\n{prose}\n"""\n')
    monkeypatch.syspath_prepend(str(tmp_path))
    parts = docstrings.parts(["notimported"], "sources.code")
    found = list(docstrings.read(parts[0], "sources.code"))
    good = [document for document in found if not document.reason]
    assert [(document.title, document.text, document.sections, document.group) for document in good] == [
        ("Scale the values evenly.", prose, [("name", "notimported.scale")], "notimported/__init__.py")
    ]
    assert [document.reason for document in found if document.reason] == ["unreadable: notimported/broken.py: SyntaxError"]


def test_missing_package_is_named() -> None:
    with pytest.raises(InputError, match=r"sources\.code\.packages: package 'no_such_thing' is not installed"):
        docstrings.parts(["no_such_thing"], "sources.code")


def test_numpy_gives_hundreds() -> None:
    found = [document for part in docstrings.parts(["numpy"], "sources.code") for document in docstrings.read(part, "sources.code")]
    kept = [document for document in found if not document.reason]
    assert len(kept) > 600
    assert all(len(document.text) >= 80 and len(document.title) <= 240 for document in kept)
    assert not [document for document in kept if "Parameters ---" in document.text or ">>>" in document.text or ":func:" in document.text]
