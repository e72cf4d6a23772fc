"""What a run of the published recipe takes on nodes of eight H100, computed: the tables of docs/cluster.md, as Markdown.

`python benchmarks/cluster_cost.py [--price USD] [--write]`. Pairs and settings come from the recipe, operations from the shapes of its two
models, rates from what was measured, and from assumptions, which are marked, where nothing was. No GPU was asked. Needs no torch.
"""

import argparse
import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from fnmatch import fnmatch
from pathlib import Path

from raysberta.parsing import load
from raysberta.recipe import Recipe
from raysberta.training.settings import Contrastive, Mlm

ROOT = Path(__file__).parents[1]
RECIPE, PAGE = ROOT / "recipes" / "ru_en_rosberta.yaml", ROOT / "docs" / "cluster.md"
PRICE = 55.04
"""USD an hour of a node of eight H100 (p5.48xlarge on demand, 6.88 a GPU, as quoted early in 2026)."""
GPUS = 8
"""Of a node."""
SHARES = (0.04, 0.15, 0.25, 0.40)
"""Of the GPU's peak in bf16 that training reaches, padding not counted as work. The first is that of the published MLM phase (10^9 tokens
in a day on two A100), the others a bad, a middling and a good case."""
MIDDLE = 2


@dataclass(frozen=True)
class Cluster:
    """Nodes of eight GPUs, and bytes a second that one sends to the next."""

    name: str
    nodes: int
    network: float


CLUSTERS = (Cluster("8 GPUs", 1, 300e9), Cluster("4 x 8 GPUs, TCP", 4, 6e9), Cluster("4 x 8 GPUs, RDMA", 4, 100e9))
"""ASSUMED: of one node, what NVLink carries from GPU to GPU; half of 100 Gbit/s by TCP; a quarter of 3,200 Gbit/s by RDMA."""


@dataclass(frozen=True)
class Shape:
    """A BERT-like encoder."""

    layers: int
    hidden: int
    inner: int
    pieces: int

    @property
    def matrices(self) -> int:
        """Weights that every token is multiplied with."""
        return self.layers * (4 * self.hidden**2 + 2 * self.hidden * self.inner)

    @property
    def weights(self) -> int:
        """All of them, but for biases and norms."""
        return self.matrices + (self.pieces + 514) * self.hidden

    def forward(self, length: float) -> float:
        """Operations of a forward pass for each token of texts of this many tokens: 2 a weight, 4 a layer for each pair of numbers."""
        return 2 * self.matrices + 4 * self.layers * self.hidden * length

    def head(self, share: float) -> float:
        """Operations of a forward pass of the masked-word head for each token, where this share of tokens is predicted."""
        return 2 * share * self.hidden * (self.hidden + self.pieces)


LARGE = Shape(24, 1024, 4096, 98_505)
"""ruRoberta-large with its vocabulary extended."""
SMALL = Shape(12, 384, 1536, 250_037)
"""multilingual-e5-small, which mines."""

# Published: about 10^9 tokens in 11.26 million texts (query, positive and one negative of a pair), so 90 a text
QUERY, DOCUMENT, PREFIX = 40, 115, 4
LONG = 180
"""Tokens of the text that a token stands in, on the mean: longer texts have more of them."""
SCORED = 850_000
"""Texts of MTEB(rus, v1.1): 592,000 passages of its five retrieval and reranking tasks and what the other 18 read."""
SCORED_TOKENS = 150
PAIR_BYTES = 1_600
BOTH = QUERY + DOCUMENT

# Measured on two CPU cores, docs/performance.md
RULES = 98 * 2**20 / 36.9
"""Bytes a second and core of the corpus stage: reading, language, rules, MinHash, writing. Of pairs an upper bound."""
TOKENISED = 125_000
"""Tokens a second and core: mE5's 250,000 pieces made 116 to 167 thousand, a byte-level BPE of 50,257 made 125 to 128."""

# ASSUMED
PEAK, PEAK_FP32 = 989e12, 67e12
"""Dense operations a second of an H100 SXM, from its data sheet: bf16, and fp32 without TF32."""
SHARE_SMALL, SHARE_FP32, SHARE_SEARCH = 0.10, 0.50, 0.20
"""Of those: embedding with the small model in bf16, scoring in fp32, exact search in fp32, whose rest is choosing the best of each row."""
START = 60.0
"""Seconds of every stage in which its processes start and load."""
EMPTY = 900.0
"""Seconds that a GPU node is paid for and does not work: it starts and installs, and idles at the end."""
SCORE_CPU = 900.0
"""Seconds of the classifiers, clusterings and rankings of a model's scores."""
BUCKETS = 2 * 500_000_000 * 4
"""DeepSpeed's two buffers of 5e8 numbers in fp32 in which gradients are reduced."""
KEPT, KEPT_INPUT = 42, 4
"""Bytes that a layer keeps of a token for each of `hidden` numbers, with dropout, in bf16 autocast; and where only its input is kept."""
AROUND = 2 * 2**30
"""Bytes of CUDA's context, NCCL and products' workspaces."""


@dataclass(frozen=True)
class Stage:
    """A stage on the longest way through the recipe: seconds of work of one core, operations of GPUs."""

    name: str
    what: str
    core_seconds: float = 0.0
    cores: int = 1
    operations: float = 0.0
    rate: float = 0.0
    """Operations a second of a GPU; 0 where training's share of the peak decides."""
    gpus: int = 0
    """At most; 0: all of them."""
    steps: int = 0
    """Optimizer steps, after each of which gradients meet."""
    more: float = 0.0
    """Seconds that more hardware does not shorten."""

    def seconds(self, cluster: Cluster, share: float) -> float:
        """On a cluster where training reaches this share of the peak; nothing is sent while something is computed."""
        gpus = min(self.gpus or GPUS * cluster.nodes, GPUS * cluster.nodes)
        computed = self.operations / ((self.rate or PEAK * share) * gpus)
        # in a ring everybody sends all gradients, and after the step all weights, but for one part; in float32
        sent = 2 * 4 * LARGE.weights * (gpus - 1) / gpus / cluster.network
        return START + self.core_seconds / (self.cores * cluster.nodes) + computed + self.steps * sent + self.more


def pairs_of(recipe: Recipe, patterns: Sequence[str] = ("*",)) -> int:
    """Pairs that the data sets give, by the recipe's limits."""
    chosen = [source for name, source in recipe.sources.items() if any(fnmatch(f"{name}/", each) for each in patterns)]
    return sum(getattr(source, "limit", None) or 0 for source in chosen)


def stages(recipe: Recipe) -> Iterator[Stage]:
    """Those of the longest way, one after the other."""
    pairs, cores = pairs_of(recipe), recipe.resources["natural"].workers
    work = f"{pairs / 1e6:.2f}M pairs, {pairs * PAIR_BYTES / 1e9:.1f} GB: rules, repeats"
    yield Stage("natural", work, pairs * (PAIR_BYTES / RULES + BOTH / TOKENISED), cores)
    yield from mining(recipe)
    yield Stage("extended", "48 thousand pieces", more=120)
    for name, phase in recipe.phases.items():
        if isinstance(phase, Mlm):
            yield mlm(name, phase, pairs)
        elif isinstance(phase, Contrastive):
            yield contrastive(name, phase, pairs)
    yield Stage("softened, merged", "two merges of 1.6 GB", more=120)
    yield scoring(recipe)
    yield Stage("release", "model, card, report", more=60)


def mining(recipe: Recipe) -> Iterator[Stage]:
    """Vectors of all queries and positives, and the search of each query among all positives."""
    mined = sum(pairs_of(recipe, examples.only) for examples in recipe.examples.values() if examples.mine)
    tokens = mined * (BOTH + 2 * PREFIX)
    work = f"{2 * mined / 1e6:.2f}M texts, {tokens / 1e9:.2f}G tokens through the mining encoder"
    yield Stage("mined, vectors", work, tokens / TOKENISED, 4 * GPUS, tokens * SMALL.forward(LONG), PEAK * SHARE_SMALL)
    work = f"{mined / 1e6:.2f}M queries x {mined / 1e6:.2f}M passages, exact"
    yield Stage("mined, search", work, operations=2 * SMALL.hidden * mined**2, rate=PEAK_FP32 * SHARE_SEARCH)


def mlm(name: str, phase: Mlm, pairs: int) -> Stage:
    """Both sides of the pairs; a backward pass is two forward ones."""
    texts, tokens = 2 * pairs * phase.epochs, pairs * BOTH * phase.epochs
    steps = phase.steps or round(texts / phase.batch_size)
    passes = 3 + phase.recompute + getattr(phase, "recompute_layers", False)
    operations = tokens * passes * (LARGE.forward(LONG) + LARGE.head(phase.mask_probability))
    work = f"{texts / 1e6:.2f}M texts, {tokens / 1e9:.2f}G tokens, {steps:,} steps; {passes} passes"
    return Stage(name, work, tokens / TOKENISED, 4 * GPUS, operations, steps=steps)


def contrastive(name: str, phase: Contrastive, pairs: int) -> Stage:
    """Each query with its positive and its negatives; what is recomputed costs one more forward pass each."""
    tokens = pairs * phase.epochs * (QUERY + PREFIX + (1 + phase.negatives) * (DOCUMENT + PREFIX))
    steps = phase.steps or round(pairs * phase.epochs / (phase.batch_size * phase.device_batches))
    passes = 3 + phase.recompute + getattr(phase, "recompute_layers", False)
    texts = pairs * phase.epochs * (2 + phase.negatives)
    work = f"{texts / 1e6:.1f}M texts, {tokens / 1e9:.2f}G tokens, {steps:,} steps; {passes} passes"
    return Stage(name, work, pairs * BOTH / TOKENISED, 4 * GPUS, tokens * passes * LARGE.forward(LONG), steps=steps)


def scoring(recipe: Recipe) -> Stage:
    """All models at the end, each on its own GPUs."""
    models, tokens, place = len(recipe.score), SCORED * SCORED_TOKENS, recipe.resources["score"]
    work = f"{models} models, {tokens / 1e9:.2f}G tokens each, {recipe.scoring.precision}; {models * place.workers} GPUs"
    rate = PEAK_FP32 * SHARE_FP32 if recipe.scoring.precision == "fp32" else PEAK * SHARES[MIDDLE]
    operations = models * tokens * LARGE.forward(LONG)
    return Stage("score", work, tokens / TOKENISED, place.cpus, operations, rate, models * place.workers, more=SCORE_CPU)


def times(found: Sequence[Stage]) -> Iterator[str]:
    """Minutes of each stage."""
    yield f"| stage | work | operations | {' | '.join(cluster.name for cluster in CLUSTERS)} |"
    yield "|---|---|---|" + "---|" * len(CLUSTERS)
    for stage in found:
        minutes = [f"{stage.seconds(cluster, SHARES[MIDDLE]) / 60:.0f} min" for cluster in CLUSTERS]
        yield f"| {stage.name} | {stage.what} | {f'{stage.operations:.1e}' if stage.operations else ''} | {' | '.join(minutes)} |"


def costs(found: Sequence[Stage], price: float) -> Iterator[str]:
    """Hours and money of the whole."""
    yield f"| training's share of the peak | {' | '.join(cluster.name for cluster in CLUSTERS)} |"
    yield "|---|" + "---|" * len(CLUSTERS)
    for share in SHARES:
        hours = [(sum(stage.seconds(cluster, share) for stage in found) + EMPTY) / 3600 for cluster in CLUSTERS]
        cells = [f"{each:.1f} h, {each * cluster.nodes * price:,.0f} USD" for each, cluster in zip(hours, CLUSTERS, strict=True)]
        yield f"| {share:.0%} | {' | '.join(cells)} |"


def memory(recipe: Recipe) -> Iterator[str]:
    """Of one GPU of eight, ZeRO 1."""
    fixed = {
        "weights, fp32": 4 * LARGE.weights,
        "gradients, fp32": 4 * LARGE.weights,
        "an eighth of the optimizer: weights and two moments, fp32": 12 * LARGE.weights / GPUS,
        "bf16 copies of the matrices": 2 * LARGE.matrices,
        "DeepSpeed's reduction buffers": BUCKETS,
        "MLM alone: logits of 2,048 masked tokens and their gradient, fp32": 8 * 2048 * LARGE.pieces,
        "CUDA, NCCL, workspaces (assumed)": AROUND,
    }
    held = sum(fixed.values())
    yield "| kept whatever the chunk | GiB |"
    yield "|---|---|"
    for name, size in [*fixed.items(), ("together", held)]:
        yield f"| {name} | {size / 2**30:.1f} |"
    yield ""
    yield "| tokens of the largest chunk | activations, GiB | in all | layers recomputed: activations | in all |"
    yield "|---|---|---|---|---|"
    sizes = {phase.chunk_tokens for phase in recipe.phases.values() if isinstance(phase, Contrastive | Mlm)}
    for tokens in sorted({8192, 16384, 32768, 65536} | sizes):
        numbers = tokens * LARGE.hidden
        whole, inputs = numbers * KEPT * LARGE.layers, numbers * (KEPT_INPUT * LARGE.layers + KEPT)
        cells = [f"{size / 2**30:.1f} | {(size + held) / 2**30:.1f}" for size in (whole, inputs)]
        yield f"| {tokens:,} | {' | '.join(cells)} |"


def tables(recipe: Recipe, price: float = PRICE) -> dict[str, str]:
    """What is computed, by the names that the document gives it."""
    found = list(stages(recipe))
    return {
        "times": "\n".join(times(found)),
        "costs": "\n".join(costs(found, price)),
        "memory": "\n".join(memory(recipe)),
    }


def with_tables(text: str, made: Mapping[str, str]) -> str:
    """The document with each table between its marks."""
    for name, table in made.items():
        begin, end = f"<!-- computed: {name} -->\n", f"\n<!-- {name} -->"
        before, _, rest = text.partition(begin)
        text = f"{before}{begin}{table}{end}{rest.partition(end)[2]}"
    return text


def main() -> int:
    """Print the tables, or put them into the document."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--price", type=float, default=PRICE, help="USD an hour of a node of eight GPUs (default: %(default)s)")
    parser.add_argument("--write", action="store_true", help="into docs/cluster.md")
    arguments = parser.parse_args()
    made = tables(load(RECIPE), arguments.price)
    if arguments.write:
        PAGE.write_text(with_tables(PAGE.read_text(encoding="utf-8"), made), encoding="utf-8")
    else:
        print("\n\n".join(made.values()))
    return 0


if __name__ == "__main__":
    sys.exit(main())
