"""What the manifest of an alignment says."""

from raysberta.training.facts import TrainingFacts
from raysberta.work import Facts


class Losses(Facts):
    """Of writing texts, a token's mean, in nats; None where there is no row of the kind."""

    own: float
    """From the states of the row's own text."""
    shuffled: float
    """From those of another row's: higher where what is written comes from the states."""


class Written(Facts):
    """On rows that nothing was learned from."""

    rows: int
    reconstruction: Losses
    completion: Losses


class AlignFacts(TrainingFacts):
    """Of a node of kind `align`."""

    decoder_before: str
    """SHA-256 of the decoder's weights."""
    decoder_after: str
    """The same after training: equal, or the stage fails."""
    before: Written | None
    """None where there are too few rows to set any apart."""
    after: Written | None
