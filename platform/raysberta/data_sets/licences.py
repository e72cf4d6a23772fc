"""The table of licences that lies beside the snapshots: what the recipe says of each data set, and what its own card says."""

from collections import defaultdict
from collections.abc import Mapping

from raysberta.data_sets.settings import DatasetSource
from raysberta.data_sets.snapshot import Index
from raysberta.storage.artifacts import write_whole
from raysberta.storage.location import filesystem, join, shown

TABLE = "licences.md"
COLUMNS = ("data set", "from", "licence", "licence on its card", "records read", "rows taken", "MB")


def write_licences(sources: Mapping[str, DatasetSource], found: Mapping[str, Index]) -> list[str]:
    """Write the table into each folder of snapshots; where it lies, as it may be shown.

    Args:
        sources: The entries, by name.
        found: The index of each that has a snapshot.
    """
    rows: dict[str, list[tuple[str, ...]]] = defaultdict(list)
    for name, index in found.items():
        rows[sources[name].snapshot].append(_row(name, sources[name], index))
    for folder, own in rows.items():
        lines = [COLUMNS, tuple("---" for _ in COLUMNS), *own]
        write_whole(*filesystem(join(folder, TABLE)), "".join(f"| {' | '.join(line)} |\n" for line in lines).encode())
    return [shown(join(folder, TABLE)) for folder in rows]


def _row(name: str, source: DatasetSource, index: Index) -> tuple[str, ...]:
    size = sum(part.bytes for part in index.parts) / 1e6
    stated, card = source.licence or "not stated", index.card_licence or "not stated"
    differs = source.licence is not None and index.card_licence is not None and source.licence.lower() != index.card_licence.lower()
    return name, index.origin, stated, f"{card} (differs)" if differs else card, f"{index.rows_read:,}", f"{index.rows:,}", f"{size:.1f}"
