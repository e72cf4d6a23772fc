"""Identity: what a node's id follows from, held against what its stage reads. One field after the other of every recipe is changed."""

import json
from collections import Counter, defaultdict
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from fnmatch import fnmatch
from pathlib import Path
from typing import Annotated, Any

import pytest

from perturbed import leaves, perturbed
from raysberta.graph import EXECUTION, EncoderRef, Section, identity
from raysberta.merging.settings import Merge, MergePhase
from raysberta.models.settings import Model
from raysberta.nodes import KINDS, Node, nodes_of
from raysberta.parsing import load
from raysberta.pipeline import plan as planning
from raysberta.pipeline.plan import Plan, plan
from raysberta.pipeline.stages import stage_of
from raysberta.recipe import Recipe
from raysberta.storage.artifacts import Draft, Store
from raysberta.work import Facts, Work
from recording import RECORDED, SEED, Recording, read, record, recorded
from small_models import a_unigram, described, english, russian, small_folder, unigram  # noqa: F401
from source_tree import ROOT

RECIPES = [Path(__file__).with_name("every_section.yaml"), *sorted((ROOT / "recipes").glob("*.yaml"))]
SPEED_ONLY = {
    *("offload", "recompute", "recompute_layers", "kept_tokens", "checkpoint_every"),  # memory and when to save
    "concurrent",  # trials at once: a search without rungs gives the same whatever their order
    *("path", "evaluation_sets", "snapshot", "language_model"),  # where files lie: their names, sizes and dates are in `outside`
    *("dictionary", "source_vectors", "target_vectors"),
}
"""Fields marked EXECUTION that stages may read, for their effect is speed, memory or the place of what identity has otherwise."""
NO_RESULT = [
    "storage",
    "data",
    "resources.*",
    "limits.*",
    "sources.*.if_missing",
    "sources.*.licence",
    *(f"*.{name}" for name in SPEED_ONLY),
]
"""Fields of a recipe that change no id."""
TOLD_BY = 3
"""Recipes that a field of a class is changed in: twenty more tell nothing new, and every one of them is planned anew for each."""
TOLD_APART = {"kind"}
"""Fields that have one value in each class: another would be another class."""


@dataclass(frozen=True)
class Change:
    """A field of a recipe that got another value."""

    key: str
    before: Mapping[str, Node]
    after: Mapping[str, Node]
    ids: Mapping[str, str]
    ids_after: Mapping[str, str]

    @property
    def touched(self) -> list[str]:
        """Nodes whose settings differ."""
        return [name for name, node in self.before.items() if name in self.after and self.after[name].settings != node.settings]


@pytest.fixture(scope="module")
def changes(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, list[Change]]]:
    """By recipe: every field changed by itself, each field of a class in TOLD_BY recipes at most."""
    store, told = Store(str(tmp_path_factory.mktemp("empty"))), Counter[tuple[str, str]]()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(planning, "outside", lambda node: {})  # it looks at this machine, and not every recipe's files are here
        yield {path.stem: list(_changes(load(path), store, told)) for path in RECIPES}


def _changes(recipe: Recipe, store: Store, told: Counter[tuple[str, str]]) -> Iterator[Change]:
    before, ids, here = nodes_of(recipe), _ids(recipe, store), set[tuple[str, str]]()

    def open_to(keys: tuple[str, ...]) -> bool:
        return told[_class_of(recipe, keys), keys[-1]] < TOLD_BY

    for keys, changed, after in perturbed(recipe, open_to):
        here.add((_class_of(recipe, keys), keys[-1]))
        yield Change(".".join(keys), before, after, ids, _ids(changed, store))
    told.update(here)


def _ids(recipe: Recipe, store: Store) -> Mapping[str, str]:
    made: Plan = plan([recipe], store)
    return made.ids[recipe.name]


def own(node: Node) -> Any:
    """A node's identity with names in place of the ids of what it is made from."""
    return identity(node.settings, {name: name for name in node.made_from})


def different(before: Section, after: Section) -> set[tuple[str, bool]]:
    """Fields that differ, as recordings name them, each with whether it or what it stands in is marked EXECUTION."""
    one, other = dict(_flat(before, "", "", False)), dict(_flat(after, "", "", False))
    return {found[:2] for key in one.keys() | other.keys() if (found := one.get(key, other.get(key))) and one.get(key) != other.get(key)}


def _flat(value: Any, concrete: str, path: str, execution: bool) -> Iterator[tuple[str, tuple[str, bool, Any]]]:
    if isinstance(value, Section):
        kind = vars(value).get("kind")
        at = f"{path}[{kind}]" if path and isinstance(kind, str) else f"[{kind}]" if isinstance(kind, str) else path
        yield concrete, (path, execution, type(value))
        for name, field in type(value).model_fields.items():
            inner = f"{at}.{name}" if at else name
            yield from _flat(getattr(value, name), f"{concrete}.{name}", inner, execution or EXECUTION in field.metadata)
    elif isinstance(value, Mapping) and any(isinstance(each, Section) for each in value.values()):
        yield concrete, (path, execution, tuple(value))
        for key, each in value.items():
            yield from _flat(each, f"{concrete}.{key}", f"{path}.*", execution)
    else:
        yield concrete, (path, execution, value)


def unnoticed(reads: Mapping[str, list[str]], change: Change, name: str) -> list[str]:
    """Fields that the node's stage reads and that differ, where the node's own identity is the same."""
    before, after = change.before[name], change.after[name]
    if own(before) != own(after):
        return []
    differ = different(before.settings, after.settings)
    return sorted(path for path, execution in differ if path in reads.get(before.kind, ()) and not (execution and last(path) in SPEED_ONLY))


def last(path: str) -> str:
    """The field's own name."""
    return path.rpartition(".")[2]


def test_every_field_is_changed_somewhere(changes: dict[str, list[Change]]) -> None:
    """Of every class of settings, so that no field is missing from the tests below."""
    fields: set[tuple[str, str]] = set()
    changed: set[tuple[str, str]] = set()
    for path in RECIPES:
        recipe, done = load(path), {change.key for change in changes[path.stem]}
        for keys, _, _ in leaves(recipe, ()):
            field = _class_of(recipe, keys), keys[-1]
            fields.add(field)
            if ".".join(keys) in done:
                changed.add(field)
    assert {field for field in fields - changed if field[1] not in TOLD_APART} == set()


def _class_of(recipe: Recipe, keys: tuple[str, ...]) -> str:
    value: Any = recipe
    for key in keys[:-1]:
        value = {str(name): each for name, each in value.items()}[key] if isinstance(value, Mapping) else getattr(value, key)
    return next(model.__name__ for model in type(value).__mro__ if keys[-1] in vars(model).get("__annotations__", {}))


def test_a_field_changes_an_id_or_decides_no_result(changes: dict[str, list[Change]]) -> None:
    for recipe, each in changes.items():
        for change in each:
            moved = {name for name in change.ids if change.ids[name] != change.ids_after.get(name)} | (change.ids_after.keys() - change.ids)
            inert = any(fnmatch(change.key, pattern) for pattern in NO_RESULT)
            assert bool(moved) != inert, f"{recipe}: {change.key} changes the ids of {sorted(moved)}"


def test_names_and_order_are_no_identity_but_of_the_release_that_tells_them(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(planning, "outside", lambda node: {})
    text = (ROOT / "recipes" / "laptop.yaml").read_text()
    renamed = tmp_path / "renamed.yaml"
    renamed.write_text(text.replace("tuned", "taught").replace("mined", "asked"))
    store = Store(str(tmp_path / "empty"))
    before, after = _ids(load(ROOT / "recipes" / "laptop.yaml"), store), _ids(load(renamed), store)
    assert {name for name in before if name not in after} == {"tuned", "mined", "search_tuned", "score_tuned", *_tasks_of(before)}
    assert set(before.values()) - set(after.values()) == {before["release"]}


def _tasks_of(ids: Mapping[str, str]) -> set[str]:
    return {name for name in ids if name.startswith("tasks_for_") and "tuned" in name}


def test_ids_follow_from_own_settings_inputs_and_seed_alone(changes: dict[str, list[Change]]) -> None:
    for recipe, each in changes.items():
        for change in each:
            touched = change.touched
            for name in change.before.keys() & change.after.keys():
                before, after = change.before[name], change.after[name]
                other = name in touched and own(before) != own(after)
                inputs = [change.ids[feed] for feed in before.made_from] != [change.ids_after[feed] for feed in after.made_from]
                seed = change.key == "seed" and stage_of(before).seeded
                moved = change.ids[name] != change.ids_after[name]
                assert moved == (other or inputs or seed), f"{recipe}: {change.key} and {name}"


def test_what_a_stage_reads_changes_its_id(changes: dict[str, list[Change]]) -> None:
    reads = json.loads(RECORDED.read_text())
    held = set()
    for recipe, each in changes.items():
        for change in each:
            for name in change.touched:
                found = unnoticed(reads, change, name)
                assert not found, f"{recipe}: {name} is made anew by no change of {', '.join(found)}, which its stage reads"
                differ = {path for path, _ in different(change.before[name].settings, change.after[name].settings)}
                if differ & set(reads.get(change.before[name].kind, ())):
                    held.add(change.before[name].kind)
    assert held == reads.keys(), "the recorded reads of a kind fit no field"


def test_what_was_recorded_are_fields_and_of_those_that_are_no_identity_the_known_ones() -> None:
    reads = json.loads(RECORDED.read_text())
    assert reads.keys() == set(KINDS) - {"benchmark"}, "a run of the smoke recipe was recorded; it names no benchmark"
    known: dict[str, dict[str, bool]] = defaultdict(dict)
    for path in RECIPES:
        for node in nodes_of(load(path)).values():
            known[node.kind].update((found[0], found[1]) for _, found in _flat(node.settings, "", "", False))
    for kind, paths in reads.items():
        for path in paths:
            if path == SEED:
                continue
            assert path in known[kind] or path.split("[")[0] in known[kind], f"{kind}: {path} is no field of its settings"
            assert not known[kind].get(path, False) or last(path) in SPEED_ONLY, f"{kind}: {path} is read, and no identity has it"


class Planted(Section):
    kind: str = "planted"
    result: int = 1
    pace: Annotated[int, EXECUTION] = 2
    other: int = 3


def _planted_stage(work: Work[Planted]) -> Facts:
    assert work.settings.result * work.settings.pace
    return Facts()


def test_a_stage_that_reads_what_is_no_identity_is_caught(tmp_path: Path) -> None:
    work = Work(Planted(), {}, Draft(str(tmp_path), str(tmp_path)))
    Recording(_planted_stage, str(tmp_path / "planted.reads"))(work)
    reads = read(tmp_path)
    assert reads == {"planted": ["[planted].pace", "[planted].result"]}
    node = Node("it", "planted", "documents", Planted(), "it")
    for field, caught in (("pace", ["[planted].pace"]), ("result", []), ("other", [])):
        changed = replace(node, settings=Planted(**{field: 9}))
        assert unnoticed(reads, Change(field, {"it": node}, {"it": changed}, {}, {}), "it") == caught


def test_an_identity_that_forgets_a_field_is_caught(monkeypatch: pytest.MonkeyPatch) -> None:
    before = nodes_of(load(ROOT / "recipes" / "smoke.yaml"))
    after = nodes_of(load(ROOT / "recipes" / "smoke.yaml", ["phases.softened.weight=0.5"]))
    change = Change("phases.softened.weight", before, after, {}, {})
    reads = {"merge": ["phase[merge].weight"]}
    assert unnoticed(reads, change, "softened") == []
    monkeypatch.setitem(Merge.model_fields, "weight", replace_metadata(Merge, "weight"))
    assert unnoticed(reads, change, "softened") == ["phase[merge].weight"]


def replace_metadata(model: type[Section], name: str) -> Any:
    """The field as if it were marked EXECUTION by mistake."""
    from copy import copy

    field = copy(model.model_fields[name])
    field.metadata = [*field.metadata, EXECUTION]
    return field


def test_settings_survive_being_recorded_and_pickled(tmp_path: Path) -> None:
    import pickle

    from raysberta.tuning.choice import with_values

    settings = nodes_of(load(RECIPES[0]))["tuned"].settings
    sink = tmp_path / "contrastive.reads"
    watched = recorded(settings, str(sink), "")
    assert isinstance(watched, type(settings)) and not sink.exists()
    assert watched.phase.temperature == 0.02
    assert read(tmp_path) == {"contrastive": ["phase", "phase[contrastive].temperature"]}
    assert with_values(watched.phase, {"temperature": 0.5}).temperature == 0.5
    there = pickle.loads(pickle.dumps(watched))
    sink.unlink()
    import recording

    recording._written.clear()  # as in another process
    assert there.phase.lora.rank == 16 and there.given.scoring.max_tokens == 64
    assert read(tmp_path)["contrastive"] == [
        *("given", "given.scoring", "given.scoring.max_tokens", "phase", "phase[contrastive].lora", "phase[contrastive].lora.rank")
    ]
    assert there == settings and there.model_dump() == settings.model_dump()


def test_two_real_stages_are_recorded(small_folder: Path, tmp_path: Path) -> None:  # noqa: F811
    from raysberta.merging.stage import run as merge
    from raysberta.models.stage import fetch

    store, reads = Store(str(tmp_path / "store")), tmp_path / "reads"
    reads.mkdir()
    made = {}
    for name in ("one", "two"):
        settings = Model.model_validate({"from": f"path:{described(small_folder)}", "layers": 2 if name == "one" else None})
        made[name] = _made(store, "model", name, Recording(fetch, str(reads / "model.reads")), settings, {})
    phase = Merge(kind="merge", of=(EncoderRef("one"), EncoderRef("one")), weight=0.25)
    _made(store, "merge", "both", Recording(merge, str(reads / "merge.reads")), MergePhase(phase=phase), made)
    found = read(reads)
    assert {"[encoder].from_", "[encoder].layers", "[encoder].kind"} <= set(found["model"])
    assert {"choice", "phase[merge].of", "phase[merge].weight", "phase[merge].method", "phase[merge].scope"} <= set(found["merge"])
    committed = json.loads(RECORDED.read_text())
    for kind, paths in found.items():
        assert set(paths) <= set(committed[kind]), f"{kind} reads more than recorded_reads.json says: run a recorded plan anew"


def test_a_recorded_plan_runs_in_rays_workers(ray_local: None, small_folder: Path, tmp_path: Path) -> None:  # noqa: F811
    import ray

    from raysberta.pipeline.worker import stage_task

    recipe = tmp_path / "recipe.yaml"
    recipe.write_text(f"name: r\nsources: {{w: {{kind: wiki_ru_wordnet}}}}\nmodels: {{base: {{from: 'path:{described(small_folder)}'}}}}\n")
    store, reads = Store(str(tmp_path / "store")), tmp_path / "reads"
    (item,) = record(plan([load(recipe)], store, ["base"]), reads).nodes
    work = Work(item.node.settings, {}, store.draft("model", item.fingerprint), node="base")
    draft, _ = ray.get(stage_task.remote(item.stage.run, work))
    assert (Path(draft.uri) / "model" / "config.json").is_file()
    assert {"[encoder].from_", "[encoder].layers"} <= set(read(reads)["model"])


def _made(store: Store, kind: str, name: str, stage: Any, settings: Section, inputs: Mapping[str, Any]) -> Any:
    draft = store.draft(kind, name)
    facts = stage(Work(settings, inputs, draft, node=name))
    return store.commit(draft, kind, name, {}, {}, 42, 0.0, facts)
