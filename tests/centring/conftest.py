"""A small real model and real texts."""

from small_models import english, russian, small_folder, unigram  # noqa: F401 - fixtures
