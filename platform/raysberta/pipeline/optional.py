"""Sources that a recipe can do without: fetched where that can be, else left out, and why is said in a line."""

from raysberta.corpus.read import check_source, fetch_source
from raysberta.data_sets.settings import DatasetSource
from raysberta.errors import InputError
from raysberta.recipe import Recipe


def with_what_is_there(recipe: Recipe, fetch: bool) -> Recipe:
    """The recipe as it stands, or without the sources that may be skipped and are missing, and without what names only them.

    Args:
        recipe: As it was read.
        fetch: Whether what a source is read from may be fetched; a dry run leaves nothing behind.

    Raises:
        InputError: a source cannot be fetched that the recipe cannot do without.
    """
    gone = []
    for name, source in recipe.sources.items():
        if isinstance(source, DatasetSource):
            continue
        skips = getattr(source, "if_missing", "stop") == "skip"
        try:
            if fetch:
                fetch_source(name, source)
            if skips:
                check_source(name, source)
        except InputError as error:
            if not skips:
                raise
            print(f"left out: {error}", flush=True)
            gone.append(name)
    return _without(recipe, gone) if gone else recipe


def _without(recipe: Recipe, gone: list[str]) -> Recipe:
    """Without some sources, their tasks, and the patterns of examples that are of them alone."""
    examples = {}
    for name, each in recipe.examples.items():
        left = tuple(pattern for pattern in each.only if pattern.partition("/")[0] not in gone)
        examples[name] = each.model_copy(update={"only": left or each.only})  # without any it would mean all
    update = {
        "sources": {name: source for name, source in recipe.sources.items() if name not in gone},
        "tasks": {name: task for name, task in recipe.tasks.items() if task.source not in gone},
        "examples": examples,
    }
    return recipe.model_copy(update=update)
