"""Texts to files of vectors: each file is named by the texts that it holds, and made only where it is not there whole."""

from collections import Counter
from collections.abc import Sequence

import numpy as np
import pyarrow.fs as pafs
import torch

from raysberta.models.folder import dimension
from raysberta.retrieval.embed import VERSION, Embedder
from raysberta.retrieval.stored import Files
from raysberta.retrieval.vectors import BLOCK_TEXTS, HALF, Vectors, as_block, block_path, steps
from raysberta.storage.artifacts import Artifact, Draft, fingerprint, versions
from raysberta.storage.location import filesystem, join

FILE_BYTES = 1 << 20
"""A file of vectors has at least so many, the last of a set aside: narrow vectors would else take many requests a byte."""


def by_length(text: str) -> tuple[int, str]:
    """The order in which texts are embedded: longest first, so batches hold texts of a length."""
    return -len(text), text


def vectors_folder(draft: Draft, model: Artifact, max_tokens: int) -> str:
    """Where the vectors of an encoder lie, beside all artifacts: named by the encoder and by what else decides a vector."""
    identity = {"model": model.manifest.id, "max_tokens": max_tokens, "block": BLOCK_TEXTS}
    identity |= {"torch": versions().get("torch"), "arithmetic": VERSION}
    return join(draft.vectors, fingerprint("vectors", identity))


def dimension_of(model: Artifact) -> int:
    """Of a model's vectors; without its weights."""
    return dimension(model.folder("model", weights=False))


def rows_of_file(dimension: int) -> int:
    """Vectors in a file: 1, 2, 4 ... blocks, for texts of a block are embedded together."""
    blocks = -(-FILE_BYTES // (HALF.itemsize * dimension * BLOCK_TEXTS))
    return BLOCK_TEXTS << (blocks - 1).bit_length()


LISTED = 1000
"""Names that an object store lists at a request."""


class Encoded:
    """An encoder's vectors on storage, made and read by one process. The encoder is loaded when the first text is to be embedded."""

    def __init__(self, model: Artifact, max_tokens: int, folder: str, files: Files) -> None:
        """Look at what is there.

        Args:
            model: An encoder.
            max_tokens: Longer texts are cut.
            folder: Of all vectors of this encoder, length and arithmetic.
            files: Counts what is asked of storage.
        """
        self.model, self.max_tokens, self.folder, self.files = model, max_tokens, folder, files
        self.dimension = dimension_of(model)
        self.rows = rows_of_file(self.dimension)
        fs, path = filesystem(folder)
        there = fs.get_file_info(pafs.FileSelector(path, allow_not_found=True))
        self._there = {info.base_name: info.size for info in there}
        files.count(1 + len(there) // LISTED)
        self._embedder: Embedder | None = None

    def vectors(self, texts: Sequence[str]) -> Vectors:
        """Where the vectors of texts are once they are written; each text with its prefix."""
        return Vectors(tuple(self._paths(texts)), len(texts), self.dimension, self.rows)

    def write(self, texts: Sequence[str]) -> tuple[Vectors, Counter[str]]:
        """The vectors of texts, and what was done: texts embedded and reused, vectors that are none. Memory is one file of them."""
        done: Counter[str] = Counter(embedded=0, reused=0, bad_vectors=0)
        found = self.vectors(texts)
        for path, (start, stop) in zip(found.paths, steps(len(texts), self.rows), strict=True):
            name, size = filesystem(path)[1].rpartition("/")[2], HALF.itemsize * (stop - start) * self.dimension
            if self._there.get(name) == size:
                done["reused"] += stop - start
                continue
            data, bad = as_block(self._embedded(texts[start:stop]))
            self.files.write(path, data)
            self._there[name] = size
            done.update(embedded=stop - start, bad_vectors=bad)
        return found, done

    def _paths(self, texts: Sequence[str]) -> list[str]:
        return [block_path(self.folder, texts[start:stop]) for start, stop in steps(len(texts), self.rows)]

    def _embedded(self, texts: Sequence[str]) -> np.ndarray:
        if self._embedder is None:
            self._embedder = Embedder(self.model.folder("model"), self.max_tokens)
        blocks = [self._embedder.encode(texts[start:stop]) for start, stop in steps(len(texts), BLOCK_TEXTS)]
        return np.concatenate(blocks)

    def let_go(self) -> None:
        """Free the encoder's memory; it is loaded again where it is needed again."""
        self._embedder = None
        if torch.cuda.is_available():
            torch.cuda.empty_cache()
