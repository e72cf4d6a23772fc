"""A decoder's tokenizer as an embedding model needs it: it can pad, and where the last token stands for the text, it puts one there."""

from tokenizers import processors
from transformers import PreTrainedTokenizerFast

from raysberta.composing.settings import Compose
from raysberta.errors import InputError

NAMES = ("bos_token", "eos_token", "unk_token", "pad_token")


def closed(tokenizer: PreTrainedTokenizerFast, settings: Compose) -> PreTrainedTokenizerFast:
    """A tokenizer of the same pieces that pads on the right and, where the model pools by the last token, ends every text by its end token.

    The end token is put there by the tokenizer and not written into the text, from which cutting would remove it.

    Raises:
        InputError: there is no token for one or the other; the message begins with the setting.
    """
    names = {name: getattr(tokenizer, name) for name in NAMES}
    if settings.pad_token is not None:
        if settings.pad_token not in tokenizer.get_vocab():
            there = f"the tokenizer of {settings.decoder} has no {settings.pad_token!r}"
            raise InputError(f"pad_token: {there}; right would be a token that it has, such as {tokenizer.eos_token!r}")
        names["pad_token"] = settings.pad_token
    if names["pad_token"] is None:
        right = repr(tokenizer.eos_token) if tokenizer.eos_token else "<one of its tokens>"
        raise InputError(f"pad_token: the tokenizer of {settings.decoder} names none to pad with; right would be pad_token: {right}")
    backend = tokenizer.backend_tokenizer
    if settings.pooling == "last":
        if tokenizer.eos_token is None:
            raise InputError(f"pooling: last needs an end token, and the tokenizer of {settings.decoder} names none; right would be mean")
        _end(tokenizer)
    given = {name: token for name, token in names.items() if token is not None}
    return PreTrainedTokenizerFast(tokenizer_object=backend, padding_side="right", **given)


def _end(tokenizer: PreTrainedTokenizerFast) -> None:
    """Let it put its end token after what it puts around a text already."""
    whole, text = tokenizer("a")["input_ids"], tokenizer("a", add_special_tokens=False)["input_ids"]
    if whole[-1] == tokenizer.eos_token_id:
        return
    at = next(place for place in range(len(whole)) if whole[place : place + len(text)] == text)
    around = [tokenizer.convert_ids_to_tokens(ids) for ids in (whole[:at], whole[at + len(text) :])]
    added = [*around[0], *around[1], tokenizer.eos_token]
    template = [*around[0], "$A", *around[1], tokenizer.eos_token]
    special = [(token, tokenizer.convert_tokens_to_ids(token)) for token in dict.fromkeys(added)]
    tokenizer.backend_tokenizer.post_processor = processors.TemplateProcessing(single=template, special_tokens=special)
