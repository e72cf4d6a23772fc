"""What the manifest of a composed model says."""

from raysberta.work import Facts


class Fitted(Facts):
    """How well a connector says a decoder's embeddings by an encoder's states."""

    texts: int
    """That were read."""
    pieces: int
    """Of the encoder in those learned from."""
    explained: float | None
    """Share of the embeddings' variance, on texts apart; None where there are too few texts for that."""


class ComposeFacts(Facts):
    """Of a node of kind `compose`."""

    parts: dict[str, int]
    """Parameters of each part, in order: encoder, Connector, Decoder, LatentAttention, Dense 1 and so on."""
    dimension: int
    """Of the vectors."""
    attention: str | None
    """What a token of the decoder was proven to see; None without a decoder."""
    fitted: Fitted | None = None
    """How well a connector fitted to texts says the decoder's embeddings; None where none was."""
