"""The files of word vectors and the dictionary that WECHSEL reads, as far as a dry run looks at them. No torch here."""

import io
from collections.abc import Iterator

from raysberta.errors import InputError
from raysberta.storage.location import filesystem, first_line, shown
from raysberta.vocabulary.settings import Vocabulary

MAX_LINE = 1 << 16


def check_vocabulary(name: str, settings: Vocabulary) -> None:
    """Look whether the files are there.

    Args:
        name: Of the phase, for messages.
        settings: Of the phase.

    Raises:
        InputError: naming the key of one that is not.
    """
    for key, uri in _files(settings).items():
        next(lines(uri, f"phases.{name}.{key}"), None)


def vocabulary_state(settings: Vocabulary) -> dict[str, list[int | None]]:
    """Size and date of each file, for fingerprints; of one that is not there neither."""
    found = {}
    for key, uri in _files(settings).items():
        system, path = filesystem(uri)
        info = system.get_file_info(path)
        found[key] = [info.size, info.mtime_ns]
    return found


def lines(uri: str, key: str) -> Iterator[str]:
    """The lines of a text file, one at a time.

    Raises:
        InputError: naming the key of the recipe, the file and what is wrong.
    """
    system, path = filesystem(uri)
    try:
        with system.open_input_stream(path, compression=None) as stream:
            text = io.TextIOWrapper(stream, encoding="utf-8-sig", errors="replace", newline="\n")
            number = 1
            while line := text.readline(MAX_LINE):
                if len(line) == MAX_LINE and not line.endswith("\n"):
                    raise InputError(f"{key}: {shown(uri)}: line {number} has over {MAX_LINE:,} characters")
                yield line
                number += 1
    except OSError as error:
        raise InputError(f"{key}: {shown(uri)} cannot be read: {first_line(error)}") from error


def _files(settings: Vocabulary) -> dict[str, str]:
    """The files that the settings name, by key."""
    given = settings.wechsel
    named = given.model_dump(include={"dictionary", "source_vectors", "target_vectors"}) if given else {}
    return {f"wechsel.{name}": uri for name, uri in named.items() if uri is not None}
