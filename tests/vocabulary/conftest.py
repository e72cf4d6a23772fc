"""Small real tokenizers and models."""

from small_models import (  # noqa: F401 - fixtures
    bpe_model,
    english,
    english_bpe,
    english_unigram,
    english_wordpiece,
    russian,
    russian_bpe,
    small_folder,
    unigram,
    unigram_model,
    wide_folder,
)
