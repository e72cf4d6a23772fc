"""One peer's side of a figure, run in the peers' own environment: `python corpus_peers.py WHAT FOLDER`.

The documents lie in FOLDER as Parquet; the result goes to FOLDER/<what>.json. Seconds are CPU seconds of this process.
"""

import json
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq

STOP_WORDS = [
    *("в", "и", "на", "с", "года", "по", "году", "из", "был", "к", "не"),
    *("от", "что", "за", "для", "его", "как", "а", "он", "также", "до", "после"),
]
RUSSIAN = {
    "repetition": {
        "dup_line_frac": 0.322,
        "dup_para_frac": 0,
        "dup_line_char_frac": 0,
        "dup_para_char_frac": 0,
        "top_n_grams": ((2, 0.184), (3, 0.164), (4, 0.146)),
        "dup_n_grams": ((5, 0.168), (6, 0.156), (7, 0.145), (8, 0.133), (9, 0.121), (10, 0.109)),
    },
    "quality": {
        "max_avg_word_length": 11,
        "max_non_alpha_words_ratio": 0.713,
        "stop_words": STOP_WORDS,
    },
    "fineweb": {"line_punct_thr": 0.231, "short_line_thr": 999, "char_duplicates_ratio": 0.1, "new_line_ratio": 0.139},
}
CODES = {"en": "eng", "ru": "rus"}
OFF_REPETITION: dict[str, Any] = {
    **dict.fromkeys(("dup_line_frac", "dup_para_frac", "dup_line_char_frac", "dup_para_char_frac"), 0),
    "top_n_grams": (),
    "dup_n_grams": (),
}
OFF_QUALITY: dict[str, Any] = dict.fromkeys(
    (
        *("min_doc_words", "max_doc_words", "min_avg_word_length", "max_avg_word_length", "max_symbol_word_ratio"),
        *("max_bullet_lines_ratio", "max_ellipsis_lines_ratio", "max_non_alpha_words_ratio", "min_stop_words"),
    )
)
OFF_FINEWEB = {"line_punct_thr": -1, "short_line_thr": 999, "char_duplicates_ratio": 999, "new_line_ratio": 999}


def texts_of(folder: Path, name: str) -> list[str]:
    """The column `text` of a Parquet file."""
    return pq.read_table(folder / f"{name}.parquet").column("text").to_pylist()


def filters(language: str) -> dict[str, Any]:
    """datatrove's filters with the published settings of a language."""
    from datatrove.pipeline.filters.fineweb_quality_filter import FineWebQualityFilter
    from datatrove.pipeline.filters.gopher_quality_filter import GopherQualityFilter
    from datatrove.pipeline.filters.gopher_repetition_filter import GopherRepetitionFilter

    own: dict[str, Any] = RUSSIAN if language == "ru" else {"repetition": {}, "quality": {}, "fineweb": {}}
    code = CODES[language]
    return {
        "repetition": GopherRepetitionFilter(language=code, **own["repetition"]),
        "quality": GopherQualityFilter(language=code, **own["quality"]),
        "fineweb": FineWebQualityFilter(language=code, **own["fineweb"]),
    }


def language_filter(language: str, model: str) -> Any:
    """datatrove's LanguageFilter over the model file that both sides use."""
    import fasttext
    from datatrove.pipeline.filters.language_filter import LanguageFilter
    from datatrove.utils.lid import FT176LID

    class Local(FT176LID):
        def predict(self, doc: Any) -> tuple[tuple[str, float], dict[str, float]]:
            labels, scores = loaded.predict(doc.text.replace("\n", " "), k=-1)
            pairs = {label.split("__")[2]: float(score) for label, score in zip(labels, scores, strict=True)}
            return max(pairs.items(), key=lambda pair: pair[1]), {name: pairs.get(name, 0.0) for name in self.languages or ()}

    loaded = fasttext.load_model(model)
    LanguageFilter._requires_dependencies = []  # it asks for a build of fastText by name; fasttext-predict is the same model code
    made = LanguageFilter([language], 0.65)
    made.model = Local([language])
    return made


def rules(folder: Path, language: str, model: str) -> dict[str, Any]:
    """Language, repetition and quality rules, each document up to its first drop, as datatrove's pipeline has it."""
    from datatrove.data import Document

    documents = [Document(text=text, id=str(index)) for index, text in enumerate(texts_of(folder, f"rules_{language}"))]
    chain = [language_filter(language, model), *filters(language).values()]
    for step in chain:
        step.filter(documents[0])
    reasons = []
    started = time.process_time()
    for document in documents:
        reason = ""
        for step in chain:
            found = step.filter(document)
            kept, why = found if isinstance(found, tuple) else (found, step.__class__.__name__)
            if not kept:
                reason = str(why)
                break
        reasons.append(reason)
    return {"seconds": time.process_time() - started, "reasons": reasons}


def single_rules(language: str) -> dict[str, Callable[[Any], Any]]:
    """A filter for each rule alone, by the name of our measure and its side."""
    from datatrove.pipeline.filters.fineweb_quality_filter import FineWebQualityFilter
    from datatrove.pipeline.filters.gopher_quality_filter import GopherQualityFilter
    from datatrove.pipeline.filters.gopher_repetition_filter import GopherRepetitionFilter

    whole = filters(language)
    repetition, quality, fineweb = whole["repetition"], whole["quality"], whole["fineweb"]
    code = CODES[language]

    def only_repetition(**on: Any) -> Any:
        return GopherRepetitionFilter(language=code, **{**OFF_REPETITION, **on})

    def only_quality(**on: Any) -> Any:
        return GopherQualityFilter(language=code, **{**OFF_QUALITY, **on})

    def only_fineweb(**on: Any) -> Any:
        return FineWebQualityFilter(language=code, **{**OFF_FINEWEB, **on})

    made = {
        "words<": only_quality(min_doc_words=quality.min_doc_words),
        "word_length<": only_quality(min_avg_word_length=quality.min_avg_word_length),
        "word_length>": only_quality(max_avg_word_length=quality.max_avg_word_length),
        "symbols>": only_quality(max_symbol_word_ratio=quality.max_symbol_word_ratio),
        "bullet_lines>": only_quality(max_bullet_lines_ratio=quality.max_bullet_lines_ratio),
        "ellipsis_lines>": only_quality(max_ellipsis_lines_ratio=quality.max_ellipsis_lines_ratio),
        "alphabetic_words<": only_quality(max_non_alpha_words_ratio=quality.max_non_alpha_words_ratio),
        "stop_words<": only_quality(min_stop_words=quality.min_stop_words, stop_words=list(quality.stop_words)),
        "punctuated_lines<": only_fineweb(line_punct_thr=fineweb.line_punct_thr),
        "short_lines>": only_fineweb(short_line_thr=fineweb.short_line_threshold),
        "repeated_line_characters>": only_fineweb(char_duplicates_ratio=fineweb.char_duplicates_ratio),
        "breaks_per_word>": only_fineweb(new_line_ratio=fineweb.new_line_ratio),
        "duplicate_lines>": only_repetition(dup_line_frac=repetition.dup_line_frac),
        "duplicate_line_characters>": only_repetition(dup_line_char_frac=repetition.dup_line_char_frac),
        "duplicate_paragraphs>": only_repetition(dup_para_frac=repetition.dup_para_frac),
        "duplicate_paragraph_characters>": only_repetition(dup_para_char_frac=repetition.dup_para_char_frac),
        **{f"top_{size}_gram>": only_repetition(top_n_grams=((size, limit),)) for size, limit in repetition.top_n_grams},
        **{f"duplicate_{size}_grams>": only_repetition(dup_n_grams=((size, limit),)) for size, limit in repetition.dup_n_grams},
    }
    return {name: step.filter for name, step in made.items()}


def decisions(folder: Path, language: str) -> dict[str, Any]:
    """What each rule alone drops, and the words that it saw; for Russian also what English stop words would drop."""
    import numpy as np
    from datatrove.data import Document
    from datatrove.pipeline.filters.gopher_quality_filter import GopherQualityFilter
    from datatrove.utils.text import split_into_words

    dropped: dict[str, list[int]] = {}
    words = []
    alone = single_rules(language)
    english = GopherQualityFilter(language=CODES[language], **{**OFF_QUALITY, "min_stop_words": 2})
    with np.errstate(all="ignore"):
        for index, text in enumerate(texts_of(folder, f"decisions_{language}")):
            document = Document(text=text, id=str(index))
            words.append(split_into_words(text, CODES[language]))
            for name, rule in {**alone, "english_stop_words": english.filter}.items():
                found = rule(document)
                if not (found[0] if isinstance(found, tuple) else found):
                    dropped.setdefault(name, []).append(index)
    return {"dropped": dropped, "rules": list(alone), "words": words}


def minhash(folder: Path) -> dict[str, Any]:
    """datatrove's four steps over one file of documents; cluster of each document, -1 where it is alone."""
    import struct

    from datatrove.data import Document
    from datatrove.pipeline.dedup import minhash as steps
    from datatrove.utils.hashing import HashConfig

    config = steps.MinhashConfig(n_grams=5, num_buckets=14, hashes_per_bucket=8, hash_config=HashConfig(precision=64))
    texts = texts_of(folder, "minhash")
    work = {name: str(folder / f"datatrove_{name}") for name in ("signatures", "buckets", "clusters")}
    started = time.process_time()
    documents = (Document(text=text, id=str(index)) for index, text in enumerate(texts))
    steps.MinhashDedupSignature(work["signatures"], config, language="rus").run(documents, 0, 1)
    buckets = steps.MinhashDedupBuckets(work["signatures"], work["buckets"], config=config)
    for rank in range(config.num_buckets):
        buckets.run(None, rank, config.num_buckets)
    steps.MinhashDedupCluster(work["buckets"], work["clusters"], config, save_cluster_id=True).run(None, 0, 1)
    again = (Document(text=text, id=str(index)) for index, text in enumerate(texts))
    kept = sum(1 for _ in steps.MinhashDedupFilter(work["clusters"]).run(again, 0, 1))
    seconds = time.process_time() - started
    cluster = [-1] * len(texts)
    for file in Path(work["clusters"]).glob("*.clusters"):
        for index, number in struct.iter_unpack("<2I", file.read_bytes()):
            cluster[index] = number
    return {"seconds": seconds, "clusters": cluster, "kept": kept}


def datasketch(folder: Path) -> dict[str, Any]:
    """datasketch's MinHash and LSH over 5-word shingles, with union-find over what a query finds."""
    import re

    from datasketch import MinHash, MinHashLSH

    texts = texts_of(folder, "minhash")
    started = time.process_time()
    index = MinHashLSH(num_perm=112, params=(14, 8))
    signatures = []
    for number, text in enumerate(texts):
        words = re.findall(r"\w+", text.lower())
        signature = MinHash(num_perm=112)
        shingles = [" ".join(words[at : at + 5]).encode() for at in range(len(words) - 4)]
        if shingles:
            signature.update_batch(shingles)
            index.insert(number, signature)
        signatures.append(signature if shingles else None)
    parents = list(range(len(texts)))

    def root(node: int) -> int:
        while parents[node] != node:
            parents[node] = parents[parents[node]]
            node = parents[node]
        return node

    for number, signature in enumerate(signatures):
        for other in index.query(signature) if signature is not None else ():
            parents[root(number)] = root(other)
    return {"seconds": time.process_time() - started, "clusters": [root(number) for number in range(len(texts))]}


def html(folder: Path) -> dict[str, Any]:
    """trafilatura's and resiliparse's main text of each page."""
    from resiliparse.extract.html2text import extract_plain_text
    from trafilatura import extract

    pages = pq.read_table(folder / "html.parquet").column("html").to_pylist()

    def measured(function: Callable[[str], str | None]) -> dict[str, Any]:
        function(pages[0])
        seconds = []
        for _ in range(3):
            started = time.process_time()
            found = [function(page) or "" for page in pages]
            seconds.append(time.process_time() - started)
        return {"seconds": min(seconds), "texts": found}

    return {"trafilatura": measured(extract), "resiliparse": measured(lambda page: extract_plain_text(page, main_content=True))}


def sides(folder: Path, ask: list[str]) -> Iterator[tuple[str, dict[str, Any]]]:
    """The figure that was asked for."""
    what, *rest = ask
    if what == "rules":
        yield f"rules_{rest[0]}", rules(folder, rest[0], rest[1])
    elif what == "decisions":
        yield f"decisions_{rest[0]}", decisions(folder, rest[0])
    else:
        yield what, {"minhash": minhash, "datasketch": datasketch, "html": html}[what](folder)


if __name__ == "__main__":
    home = Path(sys.argv[1])
    for name, result in sides(home, sys.argv[2:]):
        (home / f"{name}.json").write_text(json.dumps(result), encoding="utf-8")
