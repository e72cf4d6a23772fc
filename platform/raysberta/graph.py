"""The grammar of a recipe: sections of settings, references to other nodes, and what of a section decides a result.

A *node* is a named thing that a recipe makes: documents, pairs, examples, a model, tasks, scores, a release. A field of type `Ref` names
another node, and that is the only way in which one node comes to depend on another. A field marked `EXECUTION` decides speed, memory or
when to save, never the result: identity leaves it out.
"""

from collections.abc import Callable, Iterator, Mapping
from typing import Annotated, Any, ClassVar, Final

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, GetCoreSchemaHandler
from pydantic_core import CoreSchema, core_schema


class Section(BaseModel):
    """Part of a recipe: frozen, no unknown keys, finite numbers; the strings under the fields are the reference."""

    model_config = ConfigDict(
        frozen=True, extra="forbid", validate_default=True, use_attribute_docstrings=True, allow_inf_nan=False, populate_by_name=True
    )


class _Execution:
    """Marks a field that is no part of identity."""

    def __repr__(self) -> str:
        return "EXECUTION"


EXECUTION: Final = _Execution()
"""In a field's type, `Annotated[int, EXECUTION]`: the field decides speed, memory or when to save, and is left out of identity."""


class _Place:
    """Marks a field that says where files lie."""

    def __repr__(self) -> str:
        return "PLACE"


PLACE: Final = _Place()
"""In a field's type, `Annotated[str, PLACE]`: a path or URI, or several of them; a relative path lies under the recipe's `data`."""
Paths = Annotated[str | tuple[str, ...], EXECUTION, PLACE]
"""Where files lie. No part of identity, which has their names, sizes and dates instead: the same files elsewhere are the same source."""

MOST = 2**40
"""Greatest count that a recipe may ask for: beyond it no machine holds what is counted."""

Integer = Annotated[int, Field(strict=True, ge=-MOST, le=MOST)]
Positive = Annotated[int, Field(strict=True, gt=0, le=MOST)]
Natural = Annotated[int, Field(strict=True, ge=0, le=MOST)]
Number = Annotated[float, Field(strict=True)]
PositiveNumber = Annotated[float, Field(strict=True, gt=0.0)]
NaturalNumber = Annotated[float, Field(strict=True, ge=0.0)]
Share = Annotated[float, Field(strict=True, ge=0.0, le=1.0)]
SampleSize = Annotated[int, Field(strict=True, ge=2, le=2**14)]
"""Texts that a phase measures a model on, and whose vectors it holds; of a single one nothing is left once the mean is taken away."""


def _language(code: str) -> str:
    import pycountry  # its tables are read only where a recipe names a language

    if len(code) != 2 or code != code.lower() or pycountry.languages.get(alpha_2=code) is None:
        raise ValueError(f"{code!r} is no two-letter code of a language (ISO 639-1); right would be ru or en")
    return code


Language = Annotated[str, AfterValidator(_language)]
"""A two-letter code of ISO 639-1."""


class Ref(str):
    """The name of another node; `makes` says what that node must make."""

    makes: ClassVar[frozenset[str]] = frozenset()

    @classmethod
    def __get_pydantic_core_schema__(cls, source: Any, handler: GetCoreSchemaHandler) -> CoreSchema:
        """A string that keeps its class."""
        return core_schema.no_info_after_validator_function(
            cls, core_schema.str_schema(min_length=1), serialization=core_schema.plain_serializer_function_ser_schema(str)
        )


class EncoderRef(Ref):
    """Names an encoder: an entry of `models`, or a phase."""

    makes = frozenset({"encoder"})


class VocabularyRef(Ref):
    """Names whatever has a tokenizer."""

    makes = frozenset({"encoder", "tokenizer"})


class GeneratorRef(Ref):
    """Names a model that writes."""

    makes = frozenset({"generator"})


class ScorerRef(Ref):
    """Names an encoder or a cross-encoder: both score a query with a text."""

    makes = frozenset({"encoder", "cross_encoder"})


class CrossEncoderRef(Ref):
    """Names a cross-encoder."""

    makes = frozenset({"cross_encoder"})


class DocumentsRef(Ref):
    """Names the documents."""

    makes = frozenset({"documents"})


class PairsRef(Ref):
    """Names pairs: `natural`, or an entry of `written`."""

    makes = frozenset({"pairs"})


class ExamplesRef(Ref):
    """Names an entry of `examples`."""

    makes = frozenset({"examples"})


class TasksRef(Ref):
    """Names held-out tasks."""

    makes = frozenset({"tasks"})


class BenchmarkRef(Ref):
    """Names a registered benchmark."""

    makes = frozenset({"benchmark"})


class ChoiceRef(Ref):
    """Names the search whose best values a phase takes."""

    makes = frozenset({"choice"})


class ScoresRef(Ref):
    """Names the scores of a model."""

    makes = frozenset({"scores"})


class NodeRef(Ref):
    """Names any node, for whoever reports on it."""

    makes = frozenset(
        {"documents", "pairs", "examples", "encoder", "cross_encoder", "generator", "tokenizer", "tasks", "benchmark", "choice", "scores"}
    )


def references(value: object, path: str = "") -> Iterator[tuple[str, Ref]]:
    """Every reference in a section, a mapping or a sequence, each with its dotted path; a reference in a field marked EXECUTION too."""
    if isinstance(value, Ref):
        yield path, value
    elif isinstance(value, BaseModel):
        for name, field in type(value).model_fields.items():
            yield from references(getattr(value, name), _under(path, field.alias or name))
    elif isinstance(value, Mapping):
        for key, each in value.items():
            yield from references(each, _under(path, str(key)))
    elif isinstance(value, tuple | list):
        for number, each in enumerate(value):
            yield from references(each, _under(path, str(number)))


def identity(value: object, ids: Mapping[str, str]) -> Any:
    """A section as JSON values without the fields marked EXECUTION, each reference replaced by what it stands for.

    So the name that a recipe gives a node is no part of any identity, and two recipes that mean the same thing share it.

    Args:
        value: A section, or a value of one.
        ids: What each node's name stands for: the id of its artifact.

    Raises:
        KeyError: a reference names none of them.
    """
    if isinstance(value, Ref):
        return ids[value]
    if isinstance(value, BaseModel):
        return {
            name: identity(getattr(value, name), ids) for name, field in type(value).model_fields.items() if EXECUTION not in field.metadata
        }
    if isinstance(value, Mapping):
        return {str(key): identity(each, ids) for key, each in value.items()}
    if isinstance(value, tuple | list):
        return [identity(each, ids) for each in value]
    return value


def _under(path: str, name: str) -> str:
    return f"{path}.{name}" if path else name


def placed(value: Any, under: Callable[[str], str]) -> Any:
    """A section, mapping or sequence whose fields marked PLACE are changed, wherever they stand.

    Args:
        value: A section, or a value of one.
        under: From a path as the recipe has it to where it lies.
    """
    if isinstance(value, BaseModel):
        changed = {}
        for name, field in type(value).model_fields.items():
            old = getattr(value, name)
            new = _each(old, under) if PLACE in field.metadata else placed(old, under)
            if new is not old:
                changed[name] = new
        return value.model_copy(update=changed) if changed else value
    if isinstance(value, Mapping):
        inner = {key: placed(each, under) for key, each in value.items()}
        return inner if any(inner[key] is not value[key] for key in inner) else value
    return value


def _each(place: Any, under: Callable[[str], str]) -> Any:
    if isinstance(place, str):
        return under(place)
    return place if place is None else tuple(under(each) for each in place)
