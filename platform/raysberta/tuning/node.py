"""What a search stage is given."""

from typing import Annotated

from pydantic import Field

from raysberta.evaluation.settings import Scoring
from raysberta.graph import Section, TasksRef
from raysberta.merging.settings import Choose, Merge
from raysberta.training.settings import Contrastive, Mlm


class SearchTrials(Section):
    """A node of kind `search`: trials of a phase, whose `search` says what is tried; or the choice of a merge's weights."""

    phase: Annotated[Mlm | Contrastive | Merge, Field(discriminator="kind")]
    choose: Choose | None = None
    """How the weights of a merge are chosen; null where the phase's `search` says what is tried."""
    tasks: TasksRef | None = None
    """Held-out tasks, those whose dev halves are read and no others; null where weights are learned."""
    how: Scoring = Scoring()
    """How a trial's model is scored."""
