"""What the manifest of a centred model says."""

from raysberta.work import Facts


class CentreFacts(Facts):
    """Of a node of kind `centre`."""

    texts: int
    """That the mean is of."""
    cosine_before: float
    """Mean cosine of two of the texts' vectors."""
    cosine_after: float
    """The same with the share taken away."""
