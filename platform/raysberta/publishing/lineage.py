"""The nodes that a report tells of: each with its settings and facts as the classes of its room, and what it was made from.

A manifest that these classes do not fit, or a kind that has none here, is an error: nothing is left out in silence.
"""

import json
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import TypeVar

from pydantic import BaseModel, ConfigDict, ValidationError

from raysberta.aligning.facts import AlignFacts
from raysberta.aligning.settings import AlignPhase
from raysberta.centring.facts import CentreFacts
from raysberta.centring.settings import Centre
from raysberta.composing.facts import ComposeFacts
from raysberta.composing.settings import Compose
from raysberta.corpus.facts import CorpusFacts
from raysberta.errors import InputError
from raysberta.evaluation.facts import BenchmarkFacts, ScoresFacts, TasksFacts
from raysberta.evaluation.settings import HeldOutTasks, ModelScores
from raysberta.merging.facts import MergeFacts
from raysberta.merging.settings import MergePhase
from raysberta.mining.facts import ExamplesFacts
from raysberta.mining.settings import Examples
from raysberta.models.facts import ModelFacts
from raysberta.pairs.facts import PairsFacts
from raysberta.pruning.facts import PruneFacts
from raysberta.pruning.settings import Prune
from raysberta.storage.artifacts import Manifest
from raysberta.synthesis.facts import WrittenFacts
from raysberta.synthesis.settings import WrittenPairs
from raysberta.training.facts import DistilFacts, TrainingFacts
from raysberta.training.settings import ContrastivePhase, DistilPhase, MlmPhase
from raysberta.tuning.facts import SearchFacts
from raysberta.tuning.node import SearchTrials
from raysberta.vocabulary.facts import VocabularyFacts
from raysberta.vocabulary.settings import Vocabulary
from raysberta.work import Facts

S = TypeVar("S", bound=BaseModel)
F = TypeVar("F", bound=Facts)


class Kind(BaseModel):
    """Of a source, a data set or a model: what it is. Where it lies is no part of an identity, so no manifest has it."""

    model_config = ConfigDict(frozen=True)
    kind: str


class CorpusSources(BaseModel):
    """What a report reads of the settings of documents."""

    model_config = ConfigDict(frozen=True)
    sources: dict[str, Kind]


class DataSets(BaseModel):
    """What a report reads of the settings of natural pairs."""

    model_config = ConfigDict(frozen=True)
    data_sets: dict[str, Kind]


class BenchmarkName(BaseModel):
    """What a report reads of the settings of a benchmark."""

    model_config = ConfigDict(frozen=True)
    name: str


@dataclass(frozen=True)
class MadeNode:
    """A node of the recipe that was made."""

    name: str
    manifest: Manifest
    settings: BaseModel
    """References in it are ids of artifacts."""
    facts: Facts

    @property
    def kind(self) -> str:
        """What kind of node it is."""
        return self.manifest.kind

    def has(self, settings: type[S], facts: type[F]) -> tuple[S, F] | None:
        """Its settings and facts where they are of these classes."""
        return (self.settings, self.facts) if isinstance(self.settings, settings) and isinstance(self.facts, facts) else None


class Lineage:
    """All nodes by name, in the order of the graph."""

    def __init__(self, nodes: Iterable[MadeNode]) -> None:
        """Nodes in the order of the graph."""
        self._nodes = {node.name: node for node in nodes}
        self._names: dict[str, list[str]] = defaultdict(list)
        for node in self:
            self._names[node.manifest.id].append(node.name)

    def __iter__(self) -> Iterator[MadeNode]:
        """In the order of the graph."""
        return iter(self._nodes.values())

    def __len__(self) -> int:
        return len(self._nodes)

    def get(self, name: str) -> MadeNode | None:
        """The node of a name, or None."""
        return self._nodes.get(name)

    def names_of(self, artifact: str) -> list[str]:
        """The names that this recipe gives an artifact, by its id: two nodes may mean the same thing."""
        return self._names.get(artifact, [])

    def name_of(self, artifact: str) -> str:
        """The first of them; the id itself where there is none."""
        return next(iter(self.names_of(artifact)), artifact)

    def each(self, settings: type[S], facts: type[F]) -> Iterator[tuple[str, S, F]]:
        """Name, settings and facts of all nodes of these classes."""
        for node in self:
            found = node.has(settings, facts)
            if found is not None:
                yield node.name, *found

    def made_from(self, node: MadeNode) -> list[str]:
        """Names of what a node was made from. Its manifest may hold names that another recipe gave: ids are what counts."""
        return [name if name in self.names_of(artifact) else self.name_of(artifact) for name, artifact in node.manifest.inputs.items()]

    def origins(self, name: str) -> "Lineage":
        """A node and all that it was made from."""
        found: set[str] = set()
        waiting = [name]
        while waiting:
            node = self.get(waiting.pop())
            if node is not None and node.name not in found:
                found.add(node.name)
                waiting += self.made_from(node)
        return Lineage(node for node in self if node.name in found)


def read(manifests: Mapping[str, Manifest]) -> Lineage:
    """Nodes from their manifests, which come by the names that the recipe gives them, in the order of the graph.

    Raises:
        InputError: a manifest was written by another version, or is of a kind that has no part in a report.
    """
    return Lineage(_node(name, manifest) for name, manifest in manifests.items())


def _node(name: str, manifest: Manifest) -> MadeNode:
    settings, facts = _classes(manifest)
    return MadeNode(name, manifest, _settings(manifest, settings), manifest.told(facts))


def _classes(manifest: Manifest) -> tuple[type[BaseModel], type[Facts]]:
    match manifest.kind:
        case "model":
            return Kind, ModelFacts
        case "corpus":
            return CorpusSources, CorpusFacts
        case "natural":
            return DataSets, PairsFacts
        case "written":
            return WrittenPairs, WrittenFacts
        case "examples":
            return Examples, ExamplesFacts
        case "vocabulary":
            return Vocabulary, VocabularyFacts
        case "mlm":
            return MlmPhase, TrainingFacts
        case "contrastive":
            return ContrastivePhase, TrainingFacts
        case "align":
            return AlignPhase, AlignFacts
        case "distil":
            return DistilPhase, DistilFacts
        case "compose":
            return Compose, ComposeFacts
        case "merge":
            return MergePhase, MergeFacts
        case "prune":
            return Prune, PruneFacts
        case "centre":
            return Centre, CentreFacts
        case "search":
            return SearchTrials, SearchFacts
        case "tasks":
            return HeldOutTasks, TasksFacts
        case "benchmark":
            return BenchmarkName, BenchmarkFacts
        case "score":
            return ModelScores, ScoresFacts
        case _:
            raise InputError(f"{manifest.id}: a report has no part for nodes of kind {manifest.kind!r}")


def _settings(manifest: Manifest, settings: type[S]) -> S:
    """The settings among the identity, as the class of the room. As JSON: keys that are numbers are strings there."""
    try:
        return settings.model_validate_json(json.dumps(manifest.settings))
    except ValidationError as error:
        first = error.errors()[0]
        key = ".".join(str(part) for part in first["loc"])
        raise InputError(f"{manifest.id}: its settings were written by another version: {key}: {first['msg']}") from error
