"""transformers' Auto classes without scikit-learn, which they import for one curve of assisted generation: a sixth of a start.

What is imported once stays imported, so whoever needs an Auto class takes it from here.
"""

import transformers.utils

_asked = transformers.utils.is_sklearn_available
transformers.utils.is_sklearn_available = lambda: False
try:
    from transformers import (
        AutoConfig,
        AutoModel,
        AutoModelForCausalLM,
        AutoModelForSeq2SeqLM,
        AutoModelForSequenceClassification,
        AutoTokenizer,
    )
finally:
    transformers.utils.is_sklearn_available = _asked

__all__ = [
    "AutoConfig",
    "AutoModel",
    "AutoModelForCausalLM",
    "AutoModelForSeq2SeqLM",
    "AutoModelForSequenceClassification",
    "AutoTokenizer",
]
