"""Which parts a model is made of."""

from typing import Literal, Self

from pydantic import Field, model_validator

from raysberta.graph import DocumentsRef, EncoderRef, GeneratorRef, Natural, Positive, Ref, Section
from raysberta.models.settings import Attention, Pooling
from raysberta.prefixes import NamedPrefixes

VERSION: int = 4
"""Of the results; bumped when the same settings and inputs give another result."""


class Connector(Section):
    """From an encoder's states to what a decoder reads: Linear, ReLU, Linear, and trained tokens after each text (LUSIFER,
    arXiv 2501.00874). It begins with states as large as the decoder's embeddings are."""

    hidden: Positive | None = None
    """Width between its layers; null: that of the encoder."""
    tokens: Natural = 1
    """Trained tokens after each text, which lengthen it by as many."""
    documents: DocumentsRef | None = None
    """`corpus`: it begins as what says the decoder's embeddings of training documents best by the encoder's states of them, in closed form;
    null: drawn at random."""


class LatentAttention(Section):
    """States attend to trained latents before they are pooled (NV-Embed, arXiv 2405.17428)."""

    latents: Positive = 512
    """How many."""
    heads: Positive = 8
    """Of the attention."""
    head_width: Positive = 4096
    """Of each head."""


class Dense(Section):
    """A linear layer over vectors, and what it ends with."""

    width: Positive | None = None
    """Dimension of what comes out; null: that of what goes in."""
    activation: Literal["Identity", "Tanh", "ReLU", "GELU", "SiLU"] = "Identity"
    """Applied to what comes out."""
    bias: bool = True
    """Whether one is added."""


class Compose(Section):
    """A phase that makes a model from parts: an encoder, a decoder, or both one after the other. Nothing is trained; weights that no part
    brings along are drawn from the recipe's seed."""

    kind: Literal["compose"]
    encoder: EncoderRef | None = None
    """What reads tokens: an entry of `models`, or another phase. Null: the decoder does."""
    decoder: GeneratorRef | None = None
    """A decoder without its language-model head: an entry of `models` of kind `generator`. It reads the encoder's states, or tokens where
    there is no encoder. None where null."""
    decoder_layers: Positive | None = None
    """Keep only the decoder's first layers (for small runs); all where null."""
    attention: Attention | None = None
    """What a token of the decoder sees: those before it, or all; null: as its folder says. Proven on the decoder before it is written."""
    connector: Connector | None = None
    """Between encoder and decoder; without one they must be of one width."""
    latent_attention: LatentAttention | None = None
    """Before the pooling; none where null."""
    pooling: Pooling | None = None
    """How token states become a vector; null: as the encoder does. With `last`, a decoder's tokenizer ends each text by its end token."""
    include_prompt: bool | None = None
    """Whether the pooling counts the tokens of what goes before a text: false where instructions are read and left out of the mean; null:
    as the encoder has it, or true."""
    dense: tuple[Dense, ...] = ()
    """What a vector goes through after the pooling."""
    prefixes: NamedPrefixes | None = None
    """What goes before a text, instructions among it: a name (e5, nomic, none) or the texts themselves; null: as the encoder has it."""
    max_tokens: Positive | None = None
    """Longer texts are cut; null: as the encoder says, or as the decoder's positions allow."""
    pad_token: str | None = Field(default=None, min_length=1)
    """The token that pads, of those that the decoder's tokenizer has; null: as it says."""

    @model_validator(mode="after")
    def _parts_belong_together(self) -> Self:
        if self.encoder is None and self.decoder is None:
            raise ValueError("encoder and decoder: neither is named; right would be one of them, or both")
        if self.connector is not None and (self.encoder is None or self.decoder is None):
            raise ValueError("connector: stands between an encoder and a decoder; right would be both, or connector: null")
        if self.decoder is None:
            for name in ("decoder_layers", "attention"):
                if getattr(self, name) is not None:
                    raise ValueError(f"{name}: is of a decoder, and none is named; right would be to leave it out")
        if self.encoder is not None and self.pad_token is not None:
            raise ValueError("pad_token: texts are padded by the encoder's tokenizer, which has one; right would be to leave it out")
        return self

    @model_validator(mode="after")
    def _a_decoder_says_little_of_its_use(self) -> Self:
        if self.encoder is None:
            for name in ("pooling", "prefixes"):
                if getattr(self, name) is None:
                    raise ValueError(f"{name}: a decoder's folder says nothing of it; right would be {name}: {_FIRST[name]}")
        return self

    @property
    def from_(self) -> Ref:
        """What it goes on from, as other phases name theirs: whatever reads tokens."""
        first = self.encoder or self.decoder
        assert first is not None
        return first


_FIRST = {"pooling": "last, or mean with attention: bidirectional", "prefixes": "none, or the texts themselves"}
