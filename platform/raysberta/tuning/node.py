"""What a search stage is given."""

from typing import Annotated

from pydantic import Field

from raysberta.evaluation.settings import Scoring
from raysberta.graph import Section, TasksRef
from raysberta.merging.settings import Merge
from raysberta.training.settings import Contrastive, Mlm


class SearchTrials(Section):
    """A node of kind `search`: trials of a phase, whose `search` says what is tried."""

    phase: Annotated[Mlm | Contrastive | Merge, Field(discriminator="kind")]
    tasks: TasksRef
    """Held-out tasks, those whose dev halves are read and no others."""
    how: Scoring = Scoring()
    """How a trial's model is scored."""
