"""Parts to a model: loaded, fitted to one another, and tried before anything is written."""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import torch
from torch import Tensor
from transformers import PreTrainedModel, PreTrainedTokenizerFast

from raysberta.composing.closing import closed
from raysberta.composing.facts import Fitted
from raysberta.composing.fit import centre, rms, say_text
from raysberta.composing.settings import Compose
from raysberta.errors import InputError
from raysberta.models.attention import check_attention, set_attention
from raysberta.models.describe import PROBES, Description, describe, positions, write_description
from raysberta.models.folder import read_json
from raysberta.models.language_head import take_language_head
from raysberta.models.load import load_encoder, load_tokenizer, load_transformer
from raysberta.models.model import Model, StatesPart, load_model, save_model
from raysberta.models.parts import Connector, Decoder, Dense, LatentAttention

LOOKED_AT = 1000
"""Rows of a decoder's embeddings, evenly spaced, by which their size is judged."""


Composed = tuple[Model, PreTrainedTokenizerFast, Description]


def composed(settings: Compose, encoder: Path | None, decoder: Path | None, seed: int) -> Composed:
    """A model of parts, its tokenizer and how it is used; a connector is not fitted to texts. Memory: the model in float32, once.

    Args:
        settings: Which parts.
        encoder: The folder of the encoder that the settings name.
        decoder: The folder of the generator that they name.
        seed: New weights are drawn from it.

    Raises:
        InputError: the parts do not fit together; the message begins with the setting.
    """
    torch.manual_seed(seed)
    if decoder is None:
        assert encoder is not None
        model, tokenizer, description = load_model(encoder, pooling=settings.pooling), load_tokenizer(encoder), _encoders(settings, encoder)
    elif encoder is None:
        tokenizer, description = closed(load_tokenizer(decoder), settings), _decoders(settings, decoder)
        model = Model(_decoder(settings, decoder), description.pooling)
    else:
        tokenizer, description = load_tokenizer(encoder), _encoders(settings, encoder)
        reads, llm = load_encoder(encoder), _decoder(settings, decoder)
        model = Model(reads, description.pooling, [*_connector(settings, reads, llm, tokenizer), Decoder(llm)])
    _add(settings, model)
    if settings.include_prompt is not None:
        description = replace(description, include_prompt=settings.include_prompt)
    model.include_prompt = description.include_prompt
    return model.eval(), tokenizer, description


def fit_to_texts(made: Composed, decoder: Path, texts: Sequence[str]) -> Fitted:
    """Fit a connector to texts, which are read as documents of retrieval.

    Args:
        made: By `composed`, with a connector.
        decoder: The folder of its generator.
        texts: Different ones.
    """
    model, tokenizer, description = made
    connector, after = model.parts[:2]
    assert isinstance(connector, Connector) and isinstance(after, Decoder), "the settings see to it"
    read = [description.prefixes.retrieval_document + text for text in texts]
    return say_text(connector, (model.encoder, tokenizer), (after.model, load_tokenizer(decoder)), read, description.max_tokens)


def write(made: Composed, target: Path, generator: Path | None = None) -> None:
    """Write a model, its tokenizer and its description, and the head of the generator whose decoder reads tokens, if there is one."""
    model, tokenizer, description = made
    save_model(model, tokenizer, target)
    write_description(target, description)
    if generator is not None:
        take_language_head(generator, model.encoder, target)


def _add(settings: Compose, model: Model) -> None:
    """What stands before and after the pooling."""
    if settings.latent_attention is not None:
        if len(model.dense):
            raise InputError(f"latent_attention: {settings.encoder} has dense layers already; right would be an encoder without")
        model.parts.append(LatentAttention(model.dimension, **settings.latent_attention.model_dump()))
    for layer in settings.dense:
        model.dense.append(Dense(model.dimension, layer.width or model.dimension, layer.bias, layer.activation))


def _encoders(settings: Compose, folder: Path) -> Description:
    return describe(folder, settings.pooling, settings.prefixes, settings.max_tokens, str(settings.encoder))


def _decoders(settings: Compose, folder: Path) -> Description:
    assert settings.pooling is not None and settings.prefixes is not None, "the settings see to it"
    lengths = [length for length in (settings.max_tokens, positions(read_json(folder / "config.json"))) if length is not None]
    if not lengths:
        raise InputError(f"max_tokens: {settings.decoder} does not say how long a text may be; right would be max_tokens: 512")
    return Description(settings.pooling, settings.prefixes, min(lengths))


def _decoder(settings: Compose, folder: Path) -> PreTrainedModel:
    """The decoder, whose tokens see what the settings say."""
    llm = load_transformer(folder, layers=settings.decoder_layers)
    if settings.attention is not None:
        set_attention(llm, settings.attention)
    check_attention(llm, str(settings.decoder))
    return llm


def _connector(settings: Compose, reads: PreTrainedModel, llm: PreTrainedModel, tokenizer: PreTrainedTokenizerFast) -> list[StatesPart]:
    """From the one's width to the other's; none where the settings have none and the widths are equal."""
    here, there = reads.config.hidden_size, llm.config.hidden_size
    if settings.connector is None:
        if here != there:
            widths = f"states of {settings.encoder} are {here} wide, {settings.decoder} reads {there}"
            raise InputError(f"connector: {widths}; right would be connector: {{}}")
        return []
    connector = Connector(here, settings.connector.hidden or here, there, settings.connector.tokens)
    centre(connector, _states(reads, tokenizer), rms(_rows(llm)))
    return [connector]


@torch.no_grad()
def _states(reads: PreTrainedModel, tokenizer: PreTrainedTokenizerFast) -> Tensor:
    """States [tokens, H] of a few texts."""
    each = (tokenizer(text, return_tensors="pt", return_token_type_ids=False) for text in PROBES)
    return torch.cat([reads(**tokens).last_hidden_state[0] for tokens in each])


@torch.no_grad()
def _rows(llm: PreTrainedModel) -> Tensor:
    """Some of the embeddings [n, H] that a decoder's layers are given."""
    pieces = int(llm.config.vocab_size)
    rows: Tensor = llm.get_input_embeddings()(torch.arange(0, pieces, max(1, pieces // LOOKED_AT)))
    return rows
