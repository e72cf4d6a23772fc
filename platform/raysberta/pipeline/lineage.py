"""Everything that an artifact came from, down to source files: read from the manifests of one storage."""

import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from rich.tree import Tree

from raysberta.errors import InputError
from raysberta.storage.artifacts import Manifest, Store


def find(store: Store, asked: str, links: Mapping[str, str]) -> Manifest:
    """The manifest that is asked for.

    Args:
        store: Where to look.
        asked: An id `kind/fingerprint`, the beginning of a fingerprint, a name of a node in `links`, or a folder of an artifact.
        links: Ids by node name, of a recipe.

    Raises:
        InputError: nothing there is meant by it, or several things are.
    """
    asked = links.get(asked, asked)
    folder = Path(asked).resolve()
    for place in (folder, *folder.parents):  # a link such as latest-laptop/model leads into an attempt
        if (place / "manifest.json").is_file():
            return Manifest.model_validate(json.loads((place / "manifest.json").read_text(encoding="utf-8")))
    kind, _, mark = asked.rpartition("/")
    found = [manifest for manifest in _all(store) if manifest.fingerprint.startswith(mark) and kind in ("", manifest.kind)]
    if len(found) != 1:
        several = ", ".join(manifest.id for manifest in found[:5])
        what = f"several are meant by it: {several}" if found else "no artifact of that name, id or folder"
        raise InputError(f"{asked}: {what} in {store.shown}")
    return found[0]


def tree(store: Store, manifest: Manifest, name: str = "") -> Tree:
    """The artifact, what it was made from, and so on; what stands twice is written out once."""
    root = Tree(_line(manifest, name))
    _grow(root, store, manifest, set())
    return root


def _grow(branch: Tree, store: Store, manifest: Manifest, seen: set[str]) -> None:
    for line in _outside(manifest):
        branch.add(line)
    for name, feed in manifest.inputs.items():
        kind, _, mark = feed.partition("/")
        below = store.manifest(kind, mark)
        if below is None:
            branch.add(f"{name}: {feed} is no longer in {store.shown}")
        elif feed in seen:
            branch.add(f"{name}: {feed} (above)")
        else:
            seen.add(feed)
            _grow(branch.add(_line(below, name)), store, below, seen)


def _line(manifest: Manifest, name: str) -> str:
    rows = f", {manifest.rows_in:,} rows in, {manifest.rows_out:,} out" if manifest.rows_in or manifest.rows_out else ""
    dropped = f", {sum(manifest.dropped.values()):,} dropped" if manifest.dropped else ""
    return f"{name or manifest.kind}: {manifest.id}{rows}{dropped}, {manifest.seconds:.0f} s"


def _outside(manifest: Manifest) -> Iterator[str]:
    """What came from outside of the graph: versions of packages, numbers and digests of files, hashes of a model's files."""
    outside = manifest.identity.get("outside")
    if isinstance(outside, Mapping):
        for key, value in outside.items():
            yield f"{key}: {_flat(value)}"
    elif outside is not None:
        yield f"outside: {outside}"
    if manifest.kind == "model":
        yield f"from {manifest.facts.get('origin', '?')}"
        for file, digest in manifest.facts.get("files", {}).items():
            yield f"{file}: sha256 {digest}"
    elif manifest.kind == "corpus":
        for source, counts in manifest.facts.get("sources", {}).items():
            yield f"{source}: {counts['read']:,} documents read, {counts['kept']:,} kept"


def _flat(value: Any) -> str:
    if isinstance(value, Mapping):
        return ", ".join(f"{key} {_flat(each)}" for key, each in value.items())
    return ", ".join(map(_flat, value)) if isinstance(value, list) else str(value)


def _all(store: Store) -> Iterator[Manifest]:
    from raysberta.nodes import KINDS

    for kind in KINDS:
        yield from store.earlier(kind, most=100_000)
