"""From a recipe to its graph: the nodes with what each is made from, and whether that can be.

A node's settings are all that its stage will see. What a recipe says once for several nodes (languages, sources, scoring) is given to each
that needs it, and to no other.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property, partial

from raysberta.aligning.settings import Align, AlignPhase
from raysberta.centring.settings import Centre
from raysberta.composing.settings import Compose
from raysberta.corpus.settings import Documents
from raysberta.data_sets.settings import DatasetSource
from raysberta.errors import InputError
from raysberta.evaluation.settings import HeldOutTasks, ModelScores
from raysberta.graph import (
    BenchmarkRef,
    ChoiceRef,
    DocumentsRef,
    EncoderRef,
    NodeRef,
    PairsRef,
    Ref,
    ScoresRef,
    Section,
    TasksRef,
    placed,
    references,
)
from raysberta.merging.settings import Choose, Learned, Merge, MergePhase
from raysberta.pairs.settings import NaturalPairs
from raysberta.pruning.settings import Prune
from raysberta.publishing.settings import Release
from raysberta.recipe import Phase, Recipe
from raysberta.storage.location import under
from raysberta.synthesis.settings import WrittenPairs
from raysberta.training.settings import Contrastive, ContrastivePhase, Distil, DistilPhase, Mlm, MlmPhase, Prepared
from raysberta.tuning.choice import check_searchable
from raysberta.tuning.node import SearchTrials
from raysberta.vocabulary.settings import Vocabulary

CORPUS, NATURAL, TASKS, RELEASE = "corpus", "natural", "tasks", "release"
SCORE, SEARCH, TASKS_FOR = "score_", "search_", "tasks_for_"
KINDS = (
    *("model", "corpus", "natural", "written", "examples", "compose", "vocabulary", "mlm", "align", "distil", "contrastive"),
    *("merge", "prune", "centre", "search", "tasks", "benchmark", "score", "release"),
)
"""Kinds of node."""


@dataclass(frozen=True)
class Node:
    """One thing that a recipe makes."""

    name: str
    kind: str
    makes: str
    """What a reference may ask for: documents, pairs, examples, encoder, ..."""
    settings: Section
    key: str
    """Where in the recipe it stands, for messages."""

    @cached_property
    def made_from(self) -> tuple[str, ...]:
        """Names of the nodes it is made from, each once."""
        return tuple(dict.fromkeys(str(ref) for _, ref in references(self.settings)))


def nodes_of(recipe: Recipe) -> dict[str, Node]:
    """The nodes of a recipe, each after those it is made from.

    Raises:
        InputError: a reference names nothing, or the wrong kind of thing; a name stands twice; nodes are made from one another.
    """
    nodes: dict[str, Node] = {}
    recipe = located(recipe)
    for node in _composed(recipe):
        if node.name == RELEASE:
            raise InputError(f"{node.key}: {RELEASE} is what the node that publishes is called; right would be another name")
        if node.name in nodes:
            raise InputError(f"{node.key}: there is {nodes[node.name].key} already; right would be another name")
        nodes[node.name] = node
    _check_chosen(recipe, nodes)
    for node in nodes.values():
        for path, ref in references(node.settings):
            _check_reference(ref, nodes, _written_as(node, path), node.name)
    ordered = _ordered(nodes)
    _check_resources(recipe, ordered)
    final = _final(recipe)
    if final is not None:
        ordered[RELEASE] = _release(recipe, final, ordered)
    return ordered


def located(recipe: Recipe) -> Recipe:
    """The recipe with each relative path where it lies, under `data`."""
    located: Recipe = placed(recipe, partial(under, recipe.data))
    return located


def names_data(recipe: Recipe) -> bool:
    """Whether anything of a recipe lies under its `data`."""
    named: list[str] = []

    def seen(place: str) -> str:
        named.append(place)
        return place

    for source in recipe.sources.values():
        kept = {"snapshot"} if isinstance(source, DatasetSource) and not source.fetched else set()
        placed(source.model_copy(update=dict.fromkeys(kept, "/")), seen)
    for rest in (recipe.corpus, recipe.phases, recipe.benchmarks):
        placed(rest, seen)
    return any(under("/", place) != place for place in named)


def needed(nodes: Mapping[str, Node], until: Sequence[str]) -> dict[str, Node]:
    """Those nodes and all that they are made from, in the given order.

    Raises:
        InputError: there is no node of such a name.
    """
    found: set[str] = set()
    todo = list(until)
    while todo:
        name = todo.pop()
        if name not in nodes:
            raise InputError(f"no node {name!r} in the recipe; there are {', '.join(nodes)}")
        if name not in found:
            found.add(name)
            todo.extend(nodes[name].made_from)
    return {name: node for name, node in nodes.items() if name in found}


def first_model(nodes: Mapping[str, Node], name: str) -> str:
    """The model from outside that a model began with: of a merge, that of the first one merged."""
    while nodes[name].kind != "model":
        settings = nodes[name].settings
        phase: object = getattr(settings, "phase", settings)
        name = str(phase.from_)  # type: ignore[attr-defined]
    return name


def _composed(recipe: Recipe) -> Iterator[Node]:
    """The nodes but the release, as they stand; that what they name is there has not been seen."""
    for name, model in recipe.models.items():
        yield Node(name, "model", model.kind, model, f"models.{name}")
    yield from _texts(recipe)
    for name, writing in recipe.written.items():
        settings = WrittenPairs(documents=DocumentsRef(CORPUS), how=writing)
        yield Node(name, "written", "pairs", settings, f"written.{name}")
    for name, examples in recipe.examples.items():
        yield Node(name, "examples", "examples", examples, f"examples.{name}")
    subsets: dict[tuple[str, ...], Node] = {}
    if recipe.tasks:
        subsets[tuple(recipe.tasks)] = Node(TASKS, "tasks", "tasks", _held_out(recipe, tuple(recipe.tasks)), "tasks")
    phases = [node for name, phase in recipe.phases.items() for node in _phase(recipe, name, phase, subsets)]
    yield from subsets.values()
    yield from phases
    for name, benchmark in recipe.benchmarks.items():
        yield Node(name, "benchmark", "benchmark", benchmark, f"benchmarks.{name}")
    if recipe.tasks or recipe.benchmarks:
        yield from (_score(recipe, model) for model in _scored(recipe))


def _texts(recipe: Recipe) -> Iterator[Node]:
    """The documents, without what pairs are made of them; and the natural pairs."""
    documents = {name: source for name, source in recipe.sources.items() if not isinstance(source, DatasetSource)}
    plain = {name: source.model_copy(update={"pairs": {}}) for name, source in documents.items()}
    yield Node(CORPUS, "corpus", "documents", Documents(languages=recipe.languages, sources=plain, rules=recipe.corpus), "corpus")
    settings = NaturalPairs(
        documents=DocumentsRef(CORPUS),
        kinds={name: {str(kind): task for kind, task in source.pairs.items()} for name, source in documents.items()},
        data_sets={name: source for name, source in recipe.sources.items() if isinstance(source, DatasetSource)},
        rules=recipe.pairs,
        evaluation_sets=recipe.corpus.evaluation_sets,
        decontaminate_ngram=recipe.corpus.decontaminate_ngram,
        decontaminate_passages=recipe.corpus.decontaminate_passages,
    )
    for name in recipe.pairs.alike.least if recipe.pairs.alike else ():
        if name not in settings.names:
            raise InputError(f"pairs.alike.least: there are no pairs {name}; right would be {', '.join(settings.names)}")
    yield Node(NATURAL, "natural", "pairs", settings, "pairs")


def _phase(recipe: Recipe, name: str, phase: Phase, subsets: dict[tuple[str, ...], Node]) -> Iterator[Node]:
    """A phase, with its search before it."""
    key = f"phases.{name}"
    if isinstance(phase, Compose | Vocabulary | Prune | Centre):
        yield Node(name, phase.kind, "encoder", phase, key)
        return
    choice = None
    if phase.search is not None and not isinstance(phase, Distil | Align):  # which refuse one
        check_searchable(phase, key)
        asked = phase if isinstance(phase, Merge) else phase.model_copy(update={"dev_tasks": ()})
        tasks = _subset(recipe, f"{SEARCH}{name}", phase.search.tasks, f"{key}.search.tasks", subsets)
        trials = SearchTrials(phase=asked, tasks=tasks, how=recipe.scoring)
        yield Node(f"{SEARCH}{name}", "search", "choice", trials, f"{key}.search")
        choice = ChoiceRef(f"{SEARCH}{name}")
    if isinstance(phase, Merge):
        if phase.choose is not None:
            alike = phase.model_copy(update={"choose": None, "weights": phase.weights or (1.0,) * len(phase.of)})
            yield _chosen(recipe, name, alike, phase.choose, subsets)
            phase, choice = alike, ChoiceRef(f"{SEARCH}{name}")
        yield Node(name, "merge", "encoder", MergePhase(phase=phase.model_copy(update={"search": None}), choice=choice), key)
        return
    dev = _subset(recipe, name, phase.dev_tasks, f"{key}.dev_tasks", subsets) if phase.dev_tasks else None
    given = Prepared(tasks=dev, choice=choice, **({"scoring": recipe.scoring} if dev else {}))
    if isinstance(phase, Mlm):
        yield Node(name, "mlm", "encoder", MlmPhase(phase=phase.model_copy(update={"search": None}), given=given), key)
    elif isinstance(phase, Align):
        yield Node(name, "align", "encoder", AlignPhase(phase=phase, given=given), key)
    elif isinstance(phase, Distil):
        yield Node(name, "distil", "encoder", DistilPhase(phase=phase, given=given), key)
    elif isinstance(phase, Contrastive):
        yield Node(name, "contrastive", "encoder", ContrastivePhase(phase=phase.model_copy(update={"search": None}), given=given), key)


def _chosen(recipe: Recipe, name: str, phase: Merge, choose: Choose, subsets: dict[tuple[str, ...], Node]) -> Node:
    """What chooses the weights of a merge, which are alike in the phase until then."""
    trials = SearchTrials(phase=phase, choose=choose)
    if not isinstance(choose, Learned):
        tasks = _subset(recipe, f"{SEARCH}{name}", choose.tasks, f"phases.{name}.choose.tasks", subsets)
        trials = SearchTrials(phase=phase, choose=choose, tasks=tasks, how=recipe.scoring)
    return Node(f"{SEARCH}{name}", "search", "choice", trials, f"phases.{name}")


def _subset(recipe: Recipe, reader: str, names: tuple[str, ...], key: str, subsets: dict[tuple[str, ...], Node]) -> TasksRef:
    """The held-out tasks whose dev halves a phase or a search reads, as a node of their own, which those that read the same ones share:
    one more task elsewhere changes nothing for them.
    """
    if not recipe.tasks:
        raise InputError(f"{key}: needs dev halves, and the recipe has no tasks; right would be entries under tasks")
    for name in names:
        if name not in recipe.tasks:
            raise InputError(f"{key}: {name!r} is not among tasks: only dev halves of the recipe's own may be read before the end")
    wanted = tuple(name for name in recipe.tasks if not names or name in names)
    if wanted not in subsets:
        subsets[wanted] = Node(f"{TASKS_FOR}{reader}", "tasks", "tasks", _held_out(recipe, wanted), key)
    return TasksRef(subsets[wanted].name)


def _held_out(recipe: Recipe, names: Sequence[str]) -> HeldOutTasks:
    tasks = {name: recipe.tasks[name] for name in names}
    general = tuple(name for name, task in tasks.items() if getattr(recipe.sources.get(task.source), "held_out", False))
    return HeldOutTasks(documents=DocumentsRef(CORPUS), pairs=PairsRef(NATURAL), tasks=tasks, general=general)


def _score(recipe: Recipe, model: EncoderRef) -> Node:
    settings = ModelScores(
        model=model,
        tasks=TasksRef(TASKS) if recipe.tasks else None,
        benchmarks=tuple(BenchmarkRef(name) for name in recipe.benchmarks),
        how=recipe.scoring,
    )
    return Node(f"{SCORE}{model}", "score", "scores", settings, "score")


def _scored(recipe: Recipe) -> tuple[EncoderRef, ...]:
    """The models that are scored, in the order of the table."""
    if recipe.score is not None:
        return tuple(dict.fromkeys(recipe.score))
    final = _final(recipe)
    ends = (_base(recipe, final), final) if final is not None else ()
    return tuple(dict.fromkeys(name for name in ends if name is not None))


def _final(recipe: Recipe) -> EncoderRef | None:
    if recipe.final is not None:
        return recipe.final
    return EncoderRef(list(recipe.phases)[-1]) if recipe.phases else None


def _base(recipe: Recipe, final: EncoderRef) -> EncoderRef | None:
    """What the final model is compared with; None where its lineage leads nowhere, which the check of references tells.

    Where it began with a decoder alone, which gives no vectors, that is the first phase.
    """
    if recipe.compare_with is not None:
        return recipe.compare_with
    name, path = str(final), []
    while name in recipe.phases and name not in path:
        path.append(name)
        name = str(recipe.phases[name].from_)
    if name in recipe.models and recipe.models[name].kind == "generator" and path:
        return EncoderRef(path[-1])
    return EncoderRef(name) if name in recipe.models else None


def _release(recipe: Recipe, final: EncoderRef, nodes: Mapping[str, Node]) -> Node:
    base = _base(recipe, final)
    settings = Release(
        recipe=recipe.name,
        languages=recipe.languages,
        final=final,
        base=base if base is not None else final,
        scores=tuple(ScoresRef(f"{SCORE}{model}") for model in _scored(recipe)) if recipe.tasks or recipe.benchmarks else (),
        nodes=tuple(NodeRef(name) for name in nodes),
        names=tuple(nodes),
        about=recipe.publishing,
    )
    return Node(RELEASE, "release", "release", settings, "publishing")


def _check_chosen(recipe: Recipe, nodes: Mapping[str, Node]) -> None:
    """What the recipe says of whole models, before anything follows from it."""
    named = [("final", recipe.final), ("compare_with", recipe.compare_with)]
    named += [(f"score.{number}", model) for number, model in enumerate(recipe.score or ())]
    named += [(f"publishing.beside.{number}", model) for number, model in enumerate(recipe.publishing.beside)]
    for key, model in named:
        if model is not None:
            _check_reference(model, nodes, key)


def _check_reference(ref: Ref, nodes: Mapping[str, Node], key: str, of: str = "") -> None:
    """See that there is what a node `of` this name, or the recipe, asks for."""
    if ref in nodes and nodes[ref].makes in ref.makes:
        return
    fitting = [name for name, node in nodes.items() if node.makes in ref.makes and of not in (name, f"{SEARCH}{name}")]
    wrong = f"{ref} is {_named(nodes[ref])}" if ref in nodes else f"nothing in the recipe is called {str(ref)!r}"
    raise InputError(f"{key}: {wrong}; right would be {_one_of(fitting, ref)}")


def _written_as(node: Node, path: str) -> str:
    """A reference's place in the recipe as its author wrote it."""
    if node.kind == "search" and path.startswith("phase."):
        return f"{node.key.removesuffix('.search')}.{path.removeprefix('phase.')}"
    for inner in ("phase.", "how.", "rules."):
        path = path.removeprefix(inner)
    return f"{node.key}.{path}"


def _named(node: Node) -> str:
    article = "an" if node.makes[0] in "aeiou" else "a"
    return f"{article} {node.makes.replace('_', '-')}" if not node.makes.endswith("s") else node.makes


def _one_of(names: Sequence[str], ref: Ref) -> str:
    return ", ".join(names) if names else f"an entry that makes {' or '.join(sorted(ref.makes)).replace('_', '-')}"


def _ordered(nodes: Mapping[str, Node]) -> dict[str, Node]:
    """Each node after those it is made from, otherwise as they stand."""
    done: dict[str, Node] = {}
    waiting = dict(nodes)
    while waiting:
        ready = [name for name, node in waiting.items() if all(feed in done for feed in node.made_from)]
        if not ready:
            circle = _circle(waiting)
            raise InputError(f"{nodes[circle[0]].key}: made from itself: {' from '.join(circle)}")
        for name in ready:
            done[name] = waiting.pop(name)
    return done


def _circle(nodes: Mapping[str, Node]) -> list[str]:
    name, path = next(iter(nodes)), []
    while name not in path:
        path.append(name)
        name = next(feed for feed in nodes[name].made_from if feed in nodes)
    return [*path[path.index(name) :], name]


def _check_resources(recipe: Recipe, nodes: Mapping[str, Node]) -> None:
    for name in recipe.resources:
        if name not in nodes and name not in KINDS:
            raise InputError(f"resources.{name}: neither a kind of node nor a node; kinds are {', '.join(KINDS)}")
