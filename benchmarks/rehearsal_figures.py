"""What a rehearsal came to, a line each: rows against the plan, seconds, largest process, storage, whether two runs gave the same."""

import hashlib
import json
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import pyarrow.compute as pc
import pyarrow.dataset as pads

from raysberta.data_sets.snapshot import Index
from raysberta.evaluation.facts import ScoresFacts
from raysberta.mining.facts import ExamplesFacts
from raysberta.nodes import NATURAL
from raysberta.pairs.facts import PairsFacts
from raysberta.pipeline.plan import plan
from raysberta.recipe import Recipe
from raysberta.storage.artifacts import Artifact, Store
from rehearsal_cluster import OBJECT_STORE
from rehearsal_records import Planned
from rehearsal_watch import Look, largest

Figure = dict[str, Any]
MOST_MIB = 4096
GROWTH, SLOWER = 1.3, 11.0
"""Of the largest process and of the time, against a tenth of the size."""
REQUESTS_PER_MIB = 4
KIND = "dataset"
DECIDED = ("model", "corpus", "natural", "examples", "tasks", "vocabulary", "mlm", "merge", "contrastive")
"""Kinds of node whose files are compared; of scores the numbers are."""
BATCH_ROWS = 4096
OF_THE_SNAPSHOT = ("where", "label")
"""Reasons of rows that no snapshot holds."""
OF_SEARCH = ("mined",)
"""Nodes that search, whose time grows with the square of the rows."""


def figure(name: str, value: Any, goal: str | None = None, met: bool | None = None, **more: Any) -> Figure:
    """One line."""
    rounded = round(value, 3) if isinstance(value, float) else value
    return {"name": name, "value": rounded, "goal": goal, "met": met, **more}


def made(recipe: Recipe) -> dict[str, Artifact]:
    """What a run of a recipe left, by the nodes' names."""
    return {item.title: item.artifact for item in plan([recipe], Store(recipe.storage)).nodes if item.artifact is not None}


def stages(nodes: Mapping[str, Artifact], looks: Sequence[Look]) -> Iterator[Figure]:
    """Seconds, rows and the largest process of each node, and the bytes that it wrote."""
    for title, artifact in sorted(nodes.items(), key=lambda each: each[1].manifest.started):
        manifest = artifact.manifest
        look = largest(looks, manifest.started, manifest.started + manifest.seconds)
        yield figure(
            f"seconds of {title}",
            manifest.seconds,
            rows_in=manifest.rows_in,
            rows_out=manifest.rows_out,
            written_bytes=sum(file.bytes for file in manifest.files),
            largest_mib=round(look.mib) if look else None,
            largest=look.process if look else None,
        )


def peak(looks: Sequence[Look]) -> Iterator[Figure]:
    """The largest process of all."""
    look = largest(looks)
    if look is not None:
        shared = max(each.shared_mib for each in looks)
        given = {"process": look.process, "largest_shared_mib": round(shared), "object_store_mib_a_node": OBJECT_STORE >> 20}
        yield figure("largest process, MiB of its own", look.mib, f"<= {MOST_MIB}", look.mib <= MOST_MIB, **given)


def rows(planned: Mapping[str, Planned], natural: Artifact) -> Iterator[Figure]:
    """Pairs against the plan: kept by set, rejected by set and reason, left out and over the caps in all."""
    differing = sorted([*_kept(planned, natural), *_rejected(planned, natural), *_totals(planned, natural)])
    wrong = sum(abs(found - wanted) for _, found, wanted in differing)
    yield figure(
        "rows lost, doubled, or in the wrong mixture",
        wrong,
        "0",
        wrong == 0,
        rows_in=natural.manifest.rows_in,
        rows_out=natural.manifest.rows_out,
        planned_pairs=sum(each.kept for each in planned.values()),
        differing=[f"{name}: {found}, planned {wanted}" for name, found, wanted in differing[:20]],
    )


def snapshot(planned: Mapping[str, Planned], indexes: Mapping[str, Index]) -> Figure:
    """Records of the snapshots against the plan: read, unreadable, left out."""
    differing = []
    for name, index in indexes.items():
        own = planned[name]
        left_out = {reason: own.left_out.get(reason, 0) for reason in OF_THE_SNAPSHOT}
        found = {reason: index.dropped.get(reason, 0) for reason in OF_THE_SNAPSHOT}
        both = ((index.rows_read, index.unreadable, index.rows), (own.rows, own.unreadable, own.rows - sum(left_out.values())))
        differing += [f"{name}: {found} {both[0]}, planned {left_out} {both[1]}"] if found != left_out or both[0] != both[1] else []
    read = sum(index.rows_read for index in indexes.values())
    return figure("snapshots that hold other rows than planned", len(differing), "0", not differing, records=read, differing=differing[:20])


def mining(artifact: Artifact) -> Figure:
    """What mining says that it asked of storage, for each MiB that it read and wrote."""
    asked = artifact.told(ExamplesFacts).storage
    mib = (asked.bytes_read + asked.bytes_written) / 2**20
    return figure(
        "requests that mining counts, for each MiB read and written",
        asked.requests / max(mib, 1e-9),
        requests=asked.requests,
        read_bytes=asked.bytes_read,
        written_bytes=asked.bytes_written,
    )


def _kept(planned: Mapping[str, Planned], natural: Artifact) -> Iterator[tuple[str, int, int]]:
    told = natural.told(PairsFacts).pairs
    table: Counter[str] = Counter()
    for batch in natural.dataset("pairs").to_batches(columns=["source"], filter=pc.field("kind") == KIND):
        table.update({each["values"]: each["counts"] for each in pc.value_counts(batch["source"]).to_pylist()})
    for name, own in planned.items():
        for found in (told.get(f"{name}/{KIND}", {}).get("train", 0), table[name]):
            if found != own.kept:
                yield f"{name} kept", found, own.kept


def _rejected(planned: Mapping[str, Planned], natural: Artifact) -> Iterator[tuple[str, int, int]]:
    found: Counter[tuple[str, str]] = Counter()
    for batch in natural.dataset("rejected").to_batches(columns=["source", "reason"], filter=pc.field("kind") == KIND):
        for source, reason in zip(batch["source"].to_pylist(), batch["reason"].to_pylist(), strict=True):
            found[source, reason.partition(":")[0]] += 1
    shared = sum((Counter({name: count}) for own in planned.values() for name, count in own.shared.items()), Counter[str]())
    for name, own in planned.items():
        wanted = Counter(own.rejected) + Counter(unreadable=own.unreadable)
        for reason in wanted.keys() | {reason for source, reason in found if source == name}:
            either = shared[name] + sum(own.shared.values()) if reason == "duplicate" else 0
            if not wanted[reason] <= found[name, reason] <= wanted[reason] + either:
                yield f"{name} {reason}", found[name, reason], wanted[reason]
    copies = sum(count for (_, reason), count in found.items() if reason == "duplicate")
    all_copies = sum(own.rejected["duplicate"] + sum(own.shared.values()) for own in planned.values())
    if copies != all_copies:
        yield "duplicates in all", copies, all_copies


def _totals(planned: Mapping[str, Planned], natural: Artifact) -> Iterator[tuple[str, int, int]]:
    """What only the manifest counts: rows that entries leave out, pairs over a cap, repeats of passages; and whether all are counted."""
    manifest = natural.manifest
    dropped = manifest.dropped
    wanted = sum((Counter(own.left_out) for own in planned.values()), Counter[str]())
    for reason in OF_THE_SNAPSHOT:
        del wanted[reason]
    pairs, rejected = (sum(of(own) for own in planned.values()) for of in (_pairs, _gone))
    wanted["over_limit"] = pairs - rejected - sum(own.kept for own in planned.values())
    for reason, count in wanted.items():
        if dropped.get(reason, 0) != count:
            yield reason, dropped.get(reason, 0), count
    repeats = natural.told(PairsFacts).repeats
    for name, found, count in (
        ("rows in", manifest.rows_in, manifest.rows_out + sum(dropped.values())),
        ("repeats of evaluation texts", repeats.texts, sum(own.rejected["in_evaluation"] for own in planned.values())),
        ("repeats of passages", repeats.passages, sum(own.passages for own in planned.values())),
    ):
        if found != count:
            yield name, found, count


def _pairs(own: Planned) -> int:
    return own.pairs


def _gone(own: Planned) -> int:
    return own.rejected.total() + sum(own.shared.values())


def storage(nodes: Mapping[str, Artifact], requests: Path, vectors_bytes: int) -> Iterator[Figure]:
    """Requests and bytes of each node's time, and those of mining for each MiB of vectors and text."""
    asked = [json.loads(line) for line in requests.read_text(encoding="utf-8").splitlines()] if requests.exists() else []
    for title, artifact in nodes.items():
        start, end = artifact.manifest.started, artifact.manifest.started + artifact.manifest.seconds
        own = [each for each in asked if start <= each["time"] <= end]
        read, written = (sum(each[way] for each in own) for way in ("out", "in"))
        methods = dict(Counter(each["method"] for each in own))
        yield figure(f"requests during {title}", len(own), read_bytes=read, written_bytes=written, methods=methods)
    if "mined" in nodes and asked:
        manifest = nodes["mined"].manifest
        own = [each for each in asked if manifest.started <= each["time"] <= manifest.started + manifest.seconds]
        text = sum(file.bytes for file in (*nodes[NATURAL].manifest.files, *manifest.files) if file.path.endswith(".parquet"))
        mib = (vectors_bytes + text) / 2**20
        each_mib = len(own) / mib
        yield figure(
            "requests in mining for each MiB of vectors and text", each_mib, f"<= {REQUESTS_PER_MIB}", each_mib <= REQUESTS_PER_MIB
        )


def growth(own: Sequence[Figure], tenth: Sequence[Figure]) -> Iterator[Figure]:
    """This size against a tenth of it."""
    now, before = ({each["name"]: each for each in lines} for lines in (own, tenth))
    name = "largest process, MiB of its own"
    if name in now and name in before:
        ratio = now[name]["value"] / before[name]["value"]
        yield figure("largest process against a tenth of the size", ratio, f"<= {GROWTH}", ratio <= GROWTH)
    for name, line in now.items():
        if name.startswith("seconds of ") and name in before and name.removeprefix("seconds of ") not in OF_SEARCH:
            ratio = line["value"] / max(before[name]["value"], 0.1)
            yield figure(f"{name} against a tenth of the size", ratio, f"<= {SLOWER}", ratio <= SLOWER)


def same(first: Mapping[str, Artifact], second: Mapping[str, Artifact]) -> Iterator[Figure]:
    """Nodes whose files, or scores, differ between two runs."""
    differing = [title for title in first.keys() | second.keys() if content(first.get(title)) != content(second.get(title))]
    compared = sum(artifact.manifest.kind in (*DECIDED, "score") for artifact in first.values())
    yield figure(
        "nodes that differ after the two kills and with another number of workers",
        len(differing),
        "0",
        not differing and compared > 0,
        compared=compared,
        differing=sorted(differing),
    )


def content(artifact: Artifact | None) -> dict[str, Any]:
    """Hashes of what an artifact holds, by table or file; rows count, not how they lie in files."""
    if artifact is None:
        return {}
    manifest = artifact.manifest
    if manifest.kind == "score":
        return {"scores": artifact.told(ScoresFacts).scores}
    if manifest.kind not in DECIDED:
        return {}
    found: dict[str, Any] = {"rows": (manifest.rows_in, manifest.rows_out, manifest.dropped)}
    for name in sorted({file.path.partition("/")[0] for file in manifest.files if file.path.endswith(".parquet")}):
        found[name] = _of_rows(artifact.dataset(name))
    for file in manifest.files:
        if file.path.endswith((".safetensors", "tokenizer.json")):
            found[file.path] = hashlib.sha256(artifact.file(file.path).read_bytes()).hexdigest()
    return found


def _of_rows(table: pads.Dataset) -> str:
    digest = hashlib.sha256()
    for batch in table.to_batches(batch_size=BATCH_ROWS):
        for row in batch.to_pylist():
            digest.update(repr(row).encode("utf-8", "surrogatepass"))
    return digest.hexdigest()
