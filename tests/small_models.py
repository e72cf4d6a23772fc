"""Small real tokenizers, trained on real text, and models with their vocabulary."""

import json
import re
from importlib.resources import files
from pathlib import Path

import pytest
import torch
from tokenizers import Tokenizer, decoders, normalizers, pre_tokenizers, processors, trainers
from tokenizers.models import BPE, Unigram, WordPiece
from transformers import BertConfig, BertForMaskedLM, BertModel, PreTrainedTokenizerFast

from raysberta.models.describe import Description, write_description
from raysberta.prefixes import NONE
from raysberta.vocabulary.settings import Vocabulary

SPECIAL = ["<s>", "<pad>", "</s>", "<unk>"]
NAMES = {"bos_token": "<s>", "eos_token": "</s>", "pad_token": "<pad>", "unk_token": "<unk>", "cls_token": "<s>", "sep_token": "</s>"}


def described(folder: Path, max_tokens: int = 64) -> Path:
    """The folder, which now says that its model pools by the mean and reads texts as they are."""
    write_description(folder, Description("mean", NONE, max_tokens))
    return folder


def a_phase(**settings: object) -> Vocabulary:
    """Settings of a vocabulary phase."""
    return Vocabulary.model_validate({"kind": "vocabulary", "from": "base", **settings})


def strings(node: object) -> list[str]:
    if isinstance(node, str):
        return [node] if " " in node else []
    values = node.values() if isinstance(node, dict) else node if isinstance(node, list) else []
    return [text for value in values for text in strings(value)]


def intents(language: str) -> list[str]:
    """Sentence templates of the package home-assistant-intents, marks removed."""
    data = json.loads((files("home_assistant_intents") / "data" / f"{language}.json").read_text(encoding="utf-8"))
    return [" ".join(re.sub(r"[\[\]()|{}<>%_]+", " ", text).split()) for text in strings(data)]


@pytest.fixture(scope="session")
def russian() -> list[str]:
    return intents("ru")


@pytest.fixture(scope="session")
def english() -> list[str]:
    return intents("en")


def a_unigram(texts: list[str], size: int) -> PreTrainedTokenizerFast:
    """Like XLM-R's: `<mask>` is added on top of the model's pieces."""
    tokenizer = Tokenizer(Unigram())
    tokenizer.normalizer = normalizers.Sequence([normalizers.NFKC(), normalizers.Strip()])
    tokenizer.pre_tokenizer = pre_tokenizers.Metaspace()
    tokenizer.decoder = decoders.Metaspace()
    trainer = trainers.UnigramTrainer(vocab_size=size, special_tokens=SPECIAL, unk_token="<unk>", show_progress=False)
    tokenizer.train_from_iterator(texts, trainer)
    tokenizer.post_processor = processors.TemplateProcessing(
        single="<s> $A </s>", pair="<s> $A </s> </s> $B </s>", special_tokens=[("<s>", 0), ("</s>", 2)]
    )
    return PreTrainedTokenizerFast(tokenizer_object=tokenizer, mask_token="<mask>", model_max_length=64, **NAMES)


@pytest.fixture(scope="session")
def unigram(russian: list[str], english: list[str]) -> PreTrainedTokenizerFast:
    return a_unigram(russian[::2] + english[::2], 900)


@pytest.fixture(scope="session")
def english_unigram(english: list[str]) -> PreTrainedTokenizerFast:
    return a_unigram(english, 600)


def a_wordpiece(texts: list[str], size: int) -> PreTrainedTokenizerFast:
    """Like that of an English BERT, uncased; letters of other alphabets are pieces as well."""
    tokenizer = Tokenizer(WordPiece(unk_token="[UNK]"))
    tokenizer.normalizer = normalizers.BertNormalizer(lowercase=True)
    tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    tokenizer.decoder = decoders.WordPiece()
    named = {"pad_token": "[PAD]", "unk_token": "[UNK]", "cls_token": "[CLS]", "sep_token": "[SEP]", "mask_token": "[MASK]"}
    letters = [chr(number) for number in range(ord("а"), ord("я") + 1)]
    trainer = trainers.WordPieceTrainer(vocab_size=size, special_tokens=[*named.values()], initial_alphabet=letters, show_progress=False)
    tokenizer.train_from_iterator(texts, trainer)
    state = json.loads(tokenizer.to_str())
    for text in (f"##{letter}" for letter in letters):  # the trainer lets letters that no text has begin words alone
        state["model"]["vocab"].setdefault(text, len(state["model"]["vocab"]))
    tokenizer = Tokenizer.from_str(json.dumps(state))
    tokenizer.post_processor = processors.BertProcessing(*((name, tokenizer.token_to_id(name)) for name in ("[SEP]", "[CLS]")))
    return PreTrainedTokenizerFast(tokenizer_object=tokenizer, model_max_length=64, **named)


@pytest.fixture(scope="session")
def english_wordpiece(english: list[str]) -> PreTrainedTokenizerFast:
    return a_wordpiece(english, 500)


def bpe(texts: list[str], size: int, special: list[str]) -> PreTrainedTokenizerFast:
    """Like RoBERTa's."""
    tokenizer = Tokenizer(BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    tokenizer.train_from_iterator(
        texts, trainers.BpeTrainer(vocab_size=size, special_tokens=special, initial_alphabet=alphabet, show_progress=False)
    )
    tokenizer.post_processor = processors.RobertaProcessing(("</s>", special.index("</s>")), ("<s>", special.index("<s>")))
    return PreTrainedTokenizerFast(tokenizer_object=tokenizer, model_max_length=64, **NAMES, mask_token="<mask>")


@pytest.fixture(scope="session")
def russian_bpe(russian: list[str]) -> PreTrainedTokenizerFast:
    return bpe(russian, 900, [*SPECIAL, "<mask>"])


@pytest.fixture(scope="session")
def english_bpe(english: list[str]) -> PreTrainedTokenizerFast:
    return bpe(english, 800, ["<mask>", *SPECIAL])


def a_config(tokenizer: PreTrainedTokenizerFast, width: int = 16) -> BertConfig:
    return BertConfig(
        vocab_size=len(tokenizer) + 5,  # rows past the last piece, as in mE5
        hidden_size=width,
        num_hidden_layers=3,
        num_attention_heads=2,
        intermediate_size=32,
        max_position_embeddings=64,
        pad_token_id=tokenizer.pad_token_id,
        bos_token_id=tokenizer.bos_token_id,
        eos_token_id=tokenizer.eos_token_id,
    )


@pytest.fixture
def unigram_model(unigram: PreTrainedTokenizerFast) -> BertModel:
    torch.manual_seed(1)
    return BertModel(a_config(unigram), add_pooling_layer=False).eval()


@pytest.fixture
def bpe_model(russian_bpe: PreTrainedTokenizerFast) -> BertModel:
    torch.manual_seed(1)
    return BertModel(a_config(russian_bpe), add_pooling_layer=False).eval()


@pytest.fixture(scope="session")
def small_folder(tmp_path_factory: pytest.TempPathFactory, unigram: PreTrainedTokenizerFast) -> Path:
    """A BERT with an MLM head in half precision: what a model on a hub looks like."""
    folder = tmp_path_factory.mktemp("small")
    torch.manual_seed(1)
    model = BertForMaskedLM(a_config(unigram))
    torch.nn.init.normal_(model.cls.predictions.bias)
    model.to(dtype=torch.float16).save_pretrained(folder)
    unigram.save_pretrained(folder)
    return folder


@pytest.fixture(scope="session")
def wide_folder(tmp_path_factory: pytest.TempPathFactory, english_unigram: PreTrainedTokenizerFast) -> Path:
    """A donor: another vocabulary, another width."""
    folder = tmp_path_factory.mktemp("wide")
    torch.manual_seed(2)
    BertModel(a_config(english_unigram, 24), add_pooling_layer=False).save_pretrained(folder)
    english_unigram.save_pretrained(folder)
    return folder
