"""The training phases: what their loops share, masked language modelling, contrastive learning, embedding distillation."""

from typing import Annotated, Literal, Self

from pydantic import Field, model_validator

from raysberta.evaluation.settings import Scoring
from raysberta.graph import (
    EXECUTION,
    ChoiceRef,
    DocumentsRef,
    EncoderRef,
    ExamplesRef,
    Natural,
    NaturalNumber,
    PairsRef,
    Positive,
    PositiveNumber,
    Section,
    Share,
    TasksRef,
)
from raysberta.models.settings import Pooling
from raysberta.prefixes import NamedPrefixes
from raysberta.tuning.settings import Search

VERSION: int = 9
"""Of the results; bumped when the same settings and inputs give another result."""

Objective = Literal["info_nce", "cosent", "angle", "distillation"]
Distance = Literal["cosine", "squared"]
PartName = Literal["encoder", "connector", "decoder", "latent_attention", "dense"]
Freedom = Literal["frozen", "trained", "lora"]
HEAD_ROWS, MOST_LOGITS = 2048, 1 << 26
"""What is in memory at once: predictions of a masked-language-model head, logits of a language-model head (a quarter of a gigabyte)."""


class Lora(Section):
    """Low-rank adapters: only they are trained, and merged into the weights in the end."""

    rank: Positive = 16
    """Rank of each adapter."""
    alpha: Positive = 32
    """Scale: an adapter's product counts alpha / rank."""
    dropout: Annotated[float, Field(ge=0.0, lt=1.0, strict=True)] = 0.0
    """Before each adapter."""
    targets: tuple[str, ...] = ()
    """Names of the linear layers that get one, such as query and value; all of them where empty."""


class Training(Section):
    """What all training loops share."""

    from_: EncoderRef = Field(alias="from")
    """The model that training starts from: an entry of `models`, or another phase."""

    steps: Positive | None = None
    """Optimizer steps; where null, `epochs` decides."""
    epochs: PositiveNumber = 1.0
    """Passes over the data where `steps` is null."""
    learning_rate: PositiveNumber = 1e-5
    """Peak rate of AdamW."""
    schedule: Literal["linear", "cosine", "constant"] = "linear"
    """What follows the linear warm-up, down to 0."""
    warmup_steps: Natural = 200
    """Steps of linear warm-up."""
    weight_decay: NaturalNumber = 0.01
    """Decay of AdamW, not on biases and layer norms."""
    max_gradient_norm: PositiveNumber = 1.0
    """Gradients are clipped to this norm."""
    dropout: Share | None = None
    """Dropout probability; the base's own where null."""
    freeze_embeddings: bool = False
    """Leave the embeddings of the pieces as they are: pieces that the texts lack stay fit to those that they hold, and with a vocabulary of
    hundreds of thousands the optimizer has a fraction of the weights to keep."""
    lora: Lora | None = None
    """Train adapters instead of all weights of the model's transformers, its encoder and its decoder, for large ones; all weights where
    null. Other parts are trained whole."""
    parts: dict[PartName, Freedom] = Field(default={})
    """What becomes of single parts where that is not so: `frozen`, `trained` (all their weights), or `lora`. Parts are `encoder` (what
    reads tokens, also where that is a decoder), `connector`, `decoder`, `latent_attention` and `dense` (all such layers)."""
    precision: Literal["bf16", "fp32"] = "bf16"
    """Autocast precision, fp32 where the device has no bf16; weights and optimizer stay fp32."""
    zero_stage: Annotated[int, Field(strict=True, ge=0, le=3)] = 1
    """DeepSpeed ZeRO stage: what the workers share out is the optimizer's state (1), gradients too (2), weights too (3, large encoders)."""
    offload: Annotated[bool, EXECUTION] = False
    """Keep the optimizer's state in main memory and step there (ZeRO 1 to 3): for encoders whose state does not fit beside them."""
    chunk_tokens: Positive = 16384
    """Texts of a step are sorted by length and encoded in chunks of at most this many tokens, padding included."""
    recompute: Annotated[bool, EXECUTION] = False
    """Recompute each chunk in the backward pass (exact GradCache): memory of one chunk, at one more forward."""
    kept_tokens: Annotated[Natural, EXECUTION] = 0
    """Where chunks are recomputed: those of so many tokens a worker are not, as far as memory allows."""
    recompute_layers: Annotated[bool, EXECUTION] = False
    """Recompute each layer in the backward pass: of a chunk, only what goes into each layer is kept. Beside `recompute` for chunks that
    do not fit otherwise: one more forward again."""
    compile: bool = False
    """Compile the encoder's layers (GPU): minutes before the first step, less memory traffic in all steps. Not with zero_stage 3."""
    checkpoint_every: Annotated[Positive, EXECUTION] = 500
    """Steps between checkpoints that a killed run resumes from."""
    dev_tasks: tuple[str, ...] = ()
    """Score each checkpoint and the trained model on the dev halves of these tasks, in a Ray task beside the training with one core and as
    many GPUs as a worker has; it waits for them, at the end the training waits for it. Choosing this trains anew. Nothing where empty."""
    search: Search | None = None
    """Find some of the numbers above by short trials on dev halves; none where null."""

    def freedom(self, part: PartName) -> Freedom:
        """What becomes of a part that the phase reads."""
        return self.parts.get(part, "lora" if self.lora and part in ("encoder", "decoder") else "trained")

    @model_validator(mode="after")
    def _adapters_are_described(self) -> Self:
        for name, how in self.parts.items():
            if how == "lora" and name not in ("encoder", "decoder"):
                raise ValueError(f"parts.{name}: adapters are for an encoder or a decoder; right would be trained or frozen")
            if how == "lora" and self.lora is None:
                raise ValueError(
                    f"parts.{name}: nothing says how large adapters are; right would be lora: {{rank: 16, alpha: 32}} beside it"
                )
        return self

    @model_validator(mode="after")
    def _stage_0_has_nothing_to_offload(self) -> Self:
        if self.offload and self.zero_stage == 0:
            raise ValueError("offload: needs zero_stage 1, 2 or 3, which keep the optimizer's state apart")
        return self

    @model_validator(mode="after")
    def _under_zero_3_workers_go_in_step(self) -> Self:
        if self.kept_tokens and self.zero_stage == 3:
            raise ValueError("kept_tokens: workers would keep unequally many chunks, which zero_stage 3 does not allow; right would be 0")
        if self.compile and self.zero_stage == 3:
            raise ValueError("compile: a compiled layer does not wait for weights that zero_stage 3 keeps elsewhere; right would be false")
        return self


class RetroMae(Section):
    """A one-layer decoder reconstructs each text from its vector and few of its tokens, and is left out of the model (arXiv 2205.12035)."""

    decoder_mask: Share = 0.5
    """Share of the other tokens that a token is reconstructed without (the paper: 0.5 to 0.7, beside `mask_probability` 0.15 to 0.3)."""


class Mlm(Training):
    """Masked-language-model adaptation on the texts of the pairs."""

    kind: Literal["mlm"]
    pairs: tuple[PairsRef, ...] = (PairsRef("natural"),)
    """The texts: both sides of the training pairs."""
    examples: tuple[ExamplesRef, ...] = ()
    """Their texts too, hard negatives among them; an entry with `only` and no `pairs` here makes a phase of some sources alone."""
    batch_size: Positive = 1024
    """Texts a step, over all workers."""
    max_tokens: Positive = 512
    """Longer texts are cut."""
    mask_probability: Annotated[float, Field(gt=0.0, lt=1.0, strict=True)] = 0.15
    """Share of tokens to predict, 0.15 as in BERT or 0.3 as in ModernBERT; of these 80 % masked, 10 % random, 10 % kept."""
    whole_words: bool = False
    """Predict all pieces of a word or none."""
    mask_token: Annotated[str, Field(min_length=1)] | None = None
    """What stands for a hidden token, one of the tokenizer's; null: its own mask token. Decoders have none: LLM2Vec takes "_"."""
    next_token: bool = False
    """Predict each token from the state of the one before it, by the language model's own head, which is not trained: masked next token
    prediction (LLM2Vec, arXiv 2404.05961), for decoders whose tokens see all others."""
    retromae: RetroMae | None = None
    """Also learn vectors, pooled as the model says: what is minimised is the encoder's loss plus the decoder's. Off where null."""

    @model_validator(mode="after")
    def _there_is_something_to_predict(self) -> Self:
        if self.retromae and self.zero_stage == 3:
            raise ValueError("retromae: its decoder is not made for zero_stage 3; right would be 0, 1 or 2")
        if not self.pairs and not self.examples:
            raise ValueError("pairs and examples: neither names a text; right would be pairs: [natural]")
        if self.retromae and self.next_token:
            raise ValueError("retromae and next_token: one is for encoders, the other for decoders; right would be one of them")
        return self


class DistilTerm(Section):
    """A distance to a teacher's vectors, added to the contrastive loss: of every distinct text of a step, hard negatives too.

    Dimensions that differ are bridged as the phase `distil` does it. EmbeddingGemma (arXiv 2509.20354) learns hard negatives' vectors too.
    """

    teacher: EncoderRef
    """Whose vectors are learned: any encoder, which reads a text with its own prefixes, cut where the longer of both sides is."""
    weight: PositiveNumber = 1.0
    """Times the mean distance is added."""
    loss: Distance = "cosine"
    """Of unit vectors: 1 - their cosine, or the square of their distance, which is twice that: the same as twice the weight."""


class Generation(Section):
    """Writing, learned beside embedding with the same decoder (GRIT, arXiv 2402.09906): tokens see all of a text where vectors are made, if
    the decoder is bidirectional, and nothing later where it writes."""

    examples: tuple[ExamplesRef, ...] = Field(min_length=1)
    """What is written: each positive as the answer to its query. A few rows are set apart, to measure perplexity on."""
    weight: PositiveNumber = 1.0
    """Times its loss is added to the contrastive one."""
    mean: Literal["token", "sample"] = "token"
    """The loss is the mean over all tokens of a step's answers, or over its texts of each one's mean."""
    batch_size: Positive = 32
    """Texts a step, over all workers."""
    question: str = "Question: "
    """What stands before a query."""
    answer: str = " Answer: "
    """What stands between it and the answer; it is not predicted."""
    question_tokens: Positive = 256
    """Longer queries are cut."""
    answer_tokens: Positive = 256
    """Longer answers are cut, and have no end then."""


class Contrastive(Training):
    """InfoNCE with hard and in-batch negatives on one-source batches."""

    kind: Literal["contrastive"]
    examples: tuple[ExamplesRef, ...] = Field(min_length=1)
    """What it learns from: entries of `examples`."""
    prefixes: NamedPrefixes | None = None
    """What the model learns to read before a text: a name (e5, nomic, none) or the texts themselves; null: what it reads already."""
    pooling: Pooling | None = None
    """How the model pools from now on; null: as it does already."""
    batch_size: Positive = 128
    """Queries of a device batch: in-batch negatives stay within it."""
    device_batches: Positive = 1
    """Device batches a step (the paper: 8, one a GPU). Workers share a step's texts, so their number does not change the result."""
    negatives: Natural = 7
    """Hard negatives a query; rows with fewer contribute what they have."""
    temperature: PositiveNumber = 0.02
    """Of the softmax."""
    query_tokens: Positive = 512
    """Longer queries are cut."""
    document_tokens: Positive = 512
    """Longer documents are cut."""
    source_weights: dict[str, NaturalNumber] = Field(default={})
    """Factor on the share of batches of one `source/kind`; proportional to size where absent."""
    size_exponent: Annotated[float, Field(ge=0.0, le=1.0, strict=True)] = 1.0
    """Batches of a source grow with its rows to this power: 1 is proportional, 0 gives every source as many as the largest."""
    sampling: Literal["stratified", "step_source", "mixed"] = "stratified"
    """Sources of a step: one each device batch (the paper), one for the whole step (FlagEmbedding), or any in any batch."""
    cross_device_negatives: bool = False
    """Whether documents of a step's other device batches are negatives too; the paper keeps them on the device."""
    in_batch_negatives: bool = True
    """Whether other queries' documents are negatives of a query. False: its own hard negatives alone, as in the second stage of NV-Embed
    (arXiv 2405.17428), where texts of one class meet in a batch."""
    same_tower: bool = False
    """Also contrast queries with queries, and positives with queries and positives (GTE, Qwen3-Embedding)."""
    margin: Annotated[float, Field(ge=0.0, lt=1.0, strict=True)] = 0.0
    """Taken off the cosine of each positive."""
    guide: bool = False
    """Mask negatives that the mining encoder finds closer to the query than its positive (GISTEmbed); the examples' `mine` needs
    `keep_vectors`, and all of them the same encoder."""
    guide_margin: Annotated[float, Field(ge=-1.0, le=1.0, strict=True)] = 0.0
    """Already masked this much below the positive's cosine; negative values mask only what is so much above it."""
    dimensions: tuple[Positive, ...] = ()
    """Matryoshka: the loss is the mean of that of the whole vectors and those of their first so many dimensions."""
    objectives: dict[str, Objective] = Field(default={})
    """What a `source/kind` minimises where not info_nce: `cosent` and `angle` order pairs by their scores, `distillation` learns those."""
    teacher_temperature: PositiveNumber = 0.05
    """Divides the examples' scores where they are learned by distillation."""
    spread_out: NaturalNumber = 0.0
    """Weight of a term that spreads vectors over the sphere: the mean squared cosine of two queries of a step, plus that of two positives
    (EmbeddingGemma, arXiv 2509.20354)."""
    hardness: NaturalNumber = 0.0
    """A query's own hard negatives count exp(hardness * their cosine) times in the softmax, the cosine taken as a constant
    (EmbeddingGemma, arXiv 2509.20354, which takes 5)."""
    distil: DistilTerm | None = None
    """Learn a teacher's vectors of the same texts beside; none where null."""
    generation: Generation | None = None
    """Learn to write with the same decoder beside; not where null."""

    @model_validator(mode="after")
    def _trials_do_not_write(self) -> Self:
        if self.search is not None and self.generation is not None:
            raise ValueError("search: trials do not write; right would be null, or generation: null")
        return self

    @model_validator(mode="after")
    def _there_are_negatives(self) -> Self:
        if self.in_batch_negatives:
            return self
        for name in ("cross_device_negatives", "same_tower"):
            if getattr(self, name):
                raise ValueError(f"{name}: is of the negatives that in_batch_negatives: false leaves out; right would be false")
        if not self.negatives:
            raise ValueError("negatives: without in-batch negatives there would be none; right would be 1 or more")
        return self

    @model_validator(mode="after")
    def _mixed_batches_have_no_source(self) -> Self:
        if self.sampling == "mixed" and (self.source_weights or self.objectives or self.size_exponent != 1):
            raise ValueError("sampling: mixed batches have no source, so source_weights, objectives and size_exponent must be left out")
        return self


class Distil(Training):
    """Embedding distillation: the model learns a teacher's vectors of texts, each read as a side of its task (arXiv 2605.29992).

    Where both have vectors of one dimension they are compared as they are; elsewhere the student's go through a linear layer without bias
    to the teacher's dimension first, which is trained with the model and left out of it.
    """

    kind: Literal["distil"]
    teacher: EncoderRef
    """Whose vectors are learned: any encoder, which reads a text with its own prefixes. Its vectors are made once, and kept."""
    pairs: tuple[PairsRef, ...] = (PairsRef("natural"),)
    """The texts: queries and positives of the training pairs."""
    examples: tuple[ExamplesRef, ...] = ()
    """Their texts too, hard negatives among them."""
    documents: DocumentsRef | None = None
    """The training documents too, each as a document of retrieval, of which the beginning is read; none where null."""
    loss: Distance = "cosine"
    """Of unit vectors: 1 - their cosine, or the square of their distance, which is twice that: the same direction, clipped sooner."""
    batch_size: Positive = 256
    """Texts a step, over all workers."""
    max_tokens: Positive = 512
    """Longer texts are cut, by the tokens of whoever reads them."""
    prefixes: NamedPrefixes | None = None
    """What the model learns to read before a text: a name (e5, nomic, none) or the texts themselves; null: what it reads already."""

    @model_validator(mode="after")
    def _trials_have_no_teacher(self) -> Self:
        if self.search is not None:
            raise ValueError("search: trials are not given a teacher's vectors; right would be null")
        return self


class Prepared(Section):
    """What a training phase needs beside its own settings, filled in by the recipe's composition."""

    tasks: TasksRef | None = None
    """Held-out tasks whose dev halves score its checkpoints; none where it names no `dev_tasks`."""
    scoring: Scoring = Scoring()
    """How its checkpoints are scored; the default where they are not."""
    choice: ChoiceRef | None = None
    """The search whose best values it takes."""


class MlmPhase(Section):
    """A node of kind `mlm`."""

    phase: Mlm
    given: Prepared = Prepared()


class ContrastivePhase(Section):
    """A node of kind `contrastive`."""

    phase: Contrastive
    given: Prepared = Prepared()


class DistilPhase(Section):
    """A node of kind `distil`."""

    phase: Distil
    given: Prepared = Prepared()
