"""Rows of tables of any size, in order, for a reader that takes its time over them."""

from collections.abc import Iterator

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.dataset as pads


def scan(table: pads.Dataset, columns: list[str] | dict[str, pc.Expression], chosen: pc.Expression, rows: int) -> Iterator[pa.RecordBatch]:
    """Some rows of a table, in the order of its files.

    One row group of a Parquet file is in memory. Arrow's own scan of a whole table reads ahead for as long as its reader takes: 1.4 GiB
    of the published recipe's pairs.

    Args:
        table: What is read.
        columns: Names, or names with what they are made from.
        chosen: Which rows; row groups whose statistics rule them out are not read.
        rows: Most rows of a batch.
    """
    for fragment in table.get_fragments(chosen):
        for part in fragment.split_by_row_group(chosen) if isinstance(fragment, pads.ParquetFileFragment) else [fragment]:
            yield from part.to_batches(schema=table.schema, columns=columns, filter=chosen, batch_size=rows)
