"""Pairs from their files to their ranges: counted, dealt out to files of batches, and gathered again range by range."""

from collections.abc import Iterator

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from raysberta.mining.deal import batches, deal, gather_pairs, gather_passages
from raysberta.mining.parts import SURVEY, survey
from raysberta.mining.passages import Passages
from raysberta.mining.plan import Batch, Chunk, Place, Plan
from raysberta.mining.settings import Examples
from raysberta.retrieval.stored import Files, Traffic, ipc_batches
from raysberta.schema import PAIR
from raysberta.storage.location import join, last, parent
from raysberta.work import Work

READ_ROWS = 1 << 13
DEALT_BYTES = 1 << 26
"""Text in hand before a file of dealt rows is written: 64 MiB, and twice that while it is sorted."""


class Dealer:
    """What a worker does without a model."""

    def __init__(self, work: Work[Examples]) -> None:
        """Read and write for a node."""
        self.work, self.settings = work, work.settings
        self.files = Files(f"{last(parent(work.draft.uri))} {last(work.draft.uri)}")

    def up(self) -> None:
        """Answer."""

    def traffic(self) -> Traffic:
        """What was asked of storage since the last time."""
        return self.files.traffic()

    def drop(self) -> None:
        """Remove the node's copies of files."""
        self.files.drop()

    def _pairs_of(self, chunk: Chunk) -> Iterator[pa.Table]:
        """The training pairs of a chunk, some thousand at a time."""
        with self.files.opened(chunk.place) as stream:
            file = pq.ParquetFile(stream)
            for batch in file.iter_batches(READ_ROWS, row_groups=list(chunk.groups), columns=PAIR.names):
                table = pa.Table.from_batches([batch]).cast(PAIR)
                yield table.filter(pc.equal(table["split"], "train"))

    def survey(self, chunk: Chunk) -> pa.Table:
        """What pairs there are: rows of SURVEY."""
        return pa.concat_tables([SURVEY.empty_table(), *(survey(table, chunk.node) for table in self._pairs_of(chunk))])

    def deal(self, plan: Plan, chunk: Chunk, name: str) -> tuple[list[tuple[Place, Batch]], list[tuple[Place, Batch]], int]:
        """Deal the pairs of a chunk out; where the rows of pairs and of passages lie, and how many pairs have an empty side."""
        dealt = (_Dealing(self.files, plan.scratch, f"pairs-{name}"), _Dealing(self.files, plan.scratch, f"texts-{name}"))
        empty = 0
        for table in self._pairs_of(chunk):
            pairs, passages, blank = deal(table, chunk.node, plan.parts)
            empty += blank
            for each, rows in zip(dealt, (pairs, passages), strict=True):
                each.add(rows)
        return dealt[0].close(), dealt[1].close(), empty

    def _dealt(self, where: tuple[Batch, ...]) -> list[pa.RecordBatch]:
        return [ipc_batches(self.files.local(batch.place)).get_batch(batch.number) for batch in where]

    def gather(self, plan: Plan, place: Place) -> int:
        """Write the distinct passages of a range; how many there are."""
        mining = self.settings.mine
        languages = plan.languages if mining is not None and mining.language != "any" else ()
        found = gather_passages(self._dealt(plan.dealt.passages.get(place, ())), languages)
        sink = pa.BufferOutputStream()
        with pa.ipc.new_file(sink, found.schema) as writer:
            writer.write_batch(found)
        self.files.write(plan.passages(*place), sink.getvalue())
        return found.num_rows

    def pairs(self, plan: Plan, place: Place) -> tuple[pa.Table, int]:
        """The pairs of a range, and how many have the id of another."""
        return gather_pairs(self._dealt(plan.dealt.pairs.get(place, ())))

    def passages(self, plan: Plan) -> Passages:
        """All passages, by way of mapped files."""
        at = [(part, number) for part, sizes in enumerate(plan.numbers.sizes) for number in range(len(sizes))]
        return Passages(plan.numbers, lambda row: ipc_batches(self.files.local(plan.passages(*at[row]))).get_batch(0))


class _Dealing:
    """Files of dealt rows in the making: a record batch for each range, some ranges in each file."""

    def __init__(self, files: Files, folder: str, name: str) -> None:
        self.files, self.folder, self.name = files, folder, name
        self.waiting: list[pa.Table] = []
        self.found: list[tuple[Place, Batch]] = []
        self.written = 0

    def add(self, rows: pa.Table) -> None:
        if len(rows):
            self.waiting.append(rows)
        if sum(table.nbytes for table in self.waiting) > DEALT_BYTES:
            self._write()

    def close(self) -> list[tuple[Place, Batch]]:
        self._write()
        return self.found

    def _write(self) -> None:
        if not self.waiting:
            return
        rows, self.waiting = pa.concat_tables(self.waiting), []
        place, sink = join(self.folder, f"{self.name}-{self.written:04d}.arrow"), pa.BufferOutputStream()
        with pa.ipc.new_file(sink, rows.schema) as writer:
            for number, (part, span, batch) in enumerate(batches(rows)):
                writer.write_batch(batch)
                self.found.append(((part, span), Batch(place, number)))
        self.files.write(place, sink.getvalue())
        self.written += 1
