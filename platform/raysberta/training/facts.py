"""What the manifest of a training phase says."""

from raysberta.work import Facts


class Point(Facts):
    """One step of a training curve."""

    step: int
    loss: float
    learning_rate: float
    seconds: float
    tokens_per_second: float


class DevPoint(Facts):
    """Scores on dev halves after so many steps, fractions."""

    step: int
    own: float | None
    """The mean of the own tasks; None where none is read."""
    general: float | None
    """The mean of the general tasks; None where none is read."""
    scores: dict[str, float]
    seconds: float


class Perplexity(Facts):
    """Of a decoder that is trained to write and to make vectors, on answers that nothing was learned from."""

    rows: int
    tokens: int
    """Predicted: those of the answers."""
    before: float
    after: float


class TrainingFacts(Facts):
    """Of a node of kind `mlm` or `contrastive`."""

    steps: int
    seconds: float
    curve: list[Point]
    """At most some hundred points, the first and the last among them."""
    dev_curve: list[DevPoint]
    resumed_after: int
    """Steps that an earlier attempt had made."""
    trained_tokens: int
    tokens: int
    """Of the distinct texts."""
    rows: dict[str, int]
    """Examples by `source/kind`; of masked language modelling and distillation distinct texts under "texts"."""
    chosen: dict[str, float]
    """What the search found; empty without one."""
    generation: Perplexity | None = None
    """Of a contrastive phase that also trains to write; None elsewhere, or where there are too few rows to set any apart."""


class Agreement(Facts):
    """How far two models agree on the same texts."""

    cosine: float | None
    """Mean of a text's two vectors; None where their dimensions differ."""
    centred: float | None
    """The same, of vectors less each model's mean vector over these texts: unrelated texts may have a high cosine, which says little."""
    ranks: float
    """Spearman's rank correlation of the cosines of all pairs of texts by one and by the other."""


class Fidelity(Facts):
    """How far a student agrees with its teacher on texts that it has not learned."""

    texts: int
    """Distinct texts of dev pairs, each as the side that it is."""
    before: Agreement
    """Of the model that training began with."""
    after: Agreement


class DistilFacts(TrainingFacts):
    """Of a node of kind `distil`."""

    fidelity: Fidelity | None
    """None without dev pairs."""
    embedded: int
    """Texts that the teacher read."""
    reused: int
    """Texts that it had read before."""
    bad_vectors: int
    """Vectors of the teacher that were none; nothing is learned from them."""
