"""Small real tokenizers and models, and decoders of several families."""

from composed import encoder  # noqa: F401 - a fixture

from decoders import FAMILIES, a_decoder, generator  # noqa: F401 - fixtures
from small_models import english, russian, small_folder, unigram  # noqa: F401 - fixtures
