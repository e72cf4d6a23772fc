"""What the manifest of the natural pairs says."""

from raysberta.corpus.facts import Repeats
from raysberta.schema import Split
from raysberta.work import Facts


class PairsFacts(Facts):
    """Of the node `natural`."""

    pairs: dict[str, dict[Split, int]]
    """Kept pairs by `source/kind` and split."""
    repeats: Repeats = Repeats()
    """Pairs of data sets; documents were compared before."""
