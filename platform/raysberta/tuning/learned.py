"""Self Positioning (arXiv 2410.15035): weights of a merge and its norm by gradient, on examples that probe; no Ray here.

The merge is theta_0 + norm * (c_1 V_1 + ... + c_n V_n), see merging/differences.py, so the loss's slope along a coefficient is the product
of its gradient at the merge with that difference. One backward pass through the model as it is gives all of them, and the chain to
weights and norm is over n numbers, in float64. Nothing of the models is trained.

In memory: the differences of all models, the start, the merge and its gradient, that is n + 3 models in fp32.
"""

import heapq
from collections.abc import Iterable, Mapping, Sequence
from hashlib import blake2b
from pathlib import Path

import pyarrow as pa
import pyarrow.dataset as pads
import torch
from torch import Tensor, nn

from raysberta.errors import InputError
from raysberta.graph import EncoderRef
from raysberta.merging.differences import add_products, check_differ, coefficients
from raysberta.merging.merge import check_same, covers
from raysberta.merging.settings import Learned, Merge, Method, Scope
from raysberta.models.describe import describe
from raysberta.models.load import load_tokenizer
from raysberta.models.model import load_model
from raysberta.storage.artifacts import Artifact
from raysberta.storage.scan import scan
from raysberta.training.contrastive import ContrastiveModel, make_batch, plan_of
from raysberta.training.encode import ChunkedEncoder
from raysberta.training.engine import NotFinite, device_of
from raysberta.training.examples import COLUMNS, Examples, check_fits, prepare_tables
from raysberta.training.settings import Contrastive
from raysberta.tuning.facts import Position

State = dict[str, Tensor]
BATCH = 4096
"""Rows read at once."""


class Positions:
    """A model whose parameters are moved to where a merge is, and the slopes there."""

    def __init__(self, loss: nn.Module, moved: nn.Module, start: State, models: Sequence[State], method: Method) -> None:
        """Take the differences.

        Args:
            loss: With forward(batch) to a scalar.
            moved: The part of it whose parameters are overwritten, those that `start` names.
            start: theta_0 by the names of those parameters.
            models: Those of each merged model, n of them; taken apart tensor by tensor, so that nothing is held twice.
            method: How differences are merged.
        """
        self.model, self.start, self.method = loss, start, method
        for name, parameter in moved.named_parameters():
            parameter.requires_grad_(name in start)
        self.parameters = {name: parameter for name, parameter in moved.named_parameters() if name in start}
        self.differences = {name: torch.stack([each.pop(name).sub_(origin) for each in models]) for name, origin in start.items()}
        self.products = torch.zeros(len(models), len(models), dtype=torch.float64)
        for stacked in self.differences.values():
            add_products(self.products, list(stacked))

    def loss(self, weights: Tensor, norm: Tensor, batch: object) -> Tensor:
        """The loss of the merge, a scalar of float64, differentiable in weights and norm.

        Args:
            weights: float64 [n].
            norm: float64 scalar.
            batch: For the model.
        """
        factors = norm * coefficients(weights, self.products, self.method)
        self.move(factors.detach())
        self.model.zero_grad(set_to_none=True)
        loss = self.model(batch)
        loss.backward()
        slopes = torch.zeros_like(factors.detach())
        for name, parameter in self.parameters.items():
            if parameter.grad is not None:
                slopes += torch.mv(self.differences[name].flatten(1), parameter.grad.flatten()).double().cpu()
        return loss.detach().double().cpu() + ((factors - factors.detach()) * slopes).sum()

    @torch.no_grad()
    def move(self, factors: Tensor) -> None:
        """Set the parameters to the start plus the differences times their factors, float64 [n]."""
        for name, parameter in self.parameters.items():
            moved = torch.tensordot(factors.to(parameter), self.differences[name], dims=1)
            parameter.copy_(moved.add_(self.start[name]))


def learn(positions: Positions, batches: Iterable[object], settings: Learned, norm: float) -> list[Position]:
    """Adam over the logarithms of the weights, which keeps them above 0 and of which only the ratios count, and over the norm.

    Args:
        positions: The models.
        batches: One a step.
        settings: Rate and penalty.
        norm: Where the norm begins; the weights begin alike.

    Returns:
        Where each step found itself before it moved, and at last where the learning ended, without a loss.

    Raises:
        NotFinite: the loss is.
    """
    logits = torch.zeros(len(positions.products), dtype=torch.float64, requires_grad=True)
    length = torch.tensor(norm, dtype=torch.float64, requires_grad=True)
    optimizer = torch.optim.Adam([logits, length], lr=settings.learning_rate)
    found = []
    for step, batch in enumerate(batches):
        weights = logits.softmax(0)
        loss = positions.loss(weights, length, batch)
        if not torch.isfinite(loss):
            raise NotFinite(f"step {step + 1}: the loss is {loss.item()}; right would be a lower learning_rate")
        found.append(Position(weights=weights.tolist(), norm=length.item(), loss=loss.item()))
        optimizer.zero_grad()
        (loss + settings.norm_penalty * length).backward()
        optimizer.step()
        with torch.no_grad():
            length.clamp_(min=0.0)
    return [*found, Position(weights=logits.softmax(0).tolist(), norm=length.item(), loss=None)]


def learn_weights(phase: Merge, settings: Learned, inputs: Mapping[str, Artifact], seed: int) -> list[Position]:
    """Learn the weights and the norm of a merge, as `learn` tells.

    Args:
        phase: The merge; its weights are not read.
        settings: How to learn.
        inputs: Models, start and examples by the names that the settings have for them.
        seed: Of the batches.

    Raises:
        InputError: models do not match, or there is nothing to learn from.
    """
    assert phase.start is not None
    folders, origin, device = [inputs[name].folder("model") for name in phase.of], inputs[phase.start].folder("model"), device_of(0)
    for folder in [*folders[1:], origin]:
        check_same(folders[0], folder, phase.scope)
    examples, how = probe(inputs[settings.examples], settings, folders[0]), _contrastive(phase, settings)
    model, plan = load_model(folders[0]), plan_of(examples, how, seed)
    check_fits(examples.tokens, model)
    start, *models = (_state(folder, phase.scope, device) for folder in [origin, *folders])
    _check_shapes(start, models, origin, folders)
    loss = ContrastiveModel(ChunkedEncoder(model.to(device), "fp32", recompute=True), how)
    positions = Positions(loss, model, start, models, phase.method)
    check_differ(folders, positions.products)
    batches = (make_batch(examples, plan.step(step), how, device) for step in range(settings.steps))
    return learn(positions, batches, settings, phase.norm)


def probe(artifact: Artifact, settings: Learned, encoder: Path) -> Examples:
    """So many examples, those whose ids have the smallest hashes; the others are read and not held.

    Args:
        artifact: Of examples.
        settings: How many, and what of them.
        encoder: Folder of the first model, whose tokenizer and prefixes the merge has.

    Raises:
        InputError: there are none.
    """
    table = artifact.dataset("examples")
    ids = (name for batch in scan(table, ["pair_id"], pads.scalar(True), BATCH) for name in batch["pair_id"].to_pylist())
    chosen = heapq.nsmallest(settings.probe, ids, key=lambda name: blake2b(name.encode(), digest_size=8).digest())
    found = scan(table, list(COLUMNS), pads.field("pair_id").isin(chosen), BATCH)
    rows = pa.Table.from_batches(found, pa.schema([table.schema.field(name) for name in COLUMNS]))
    tokens = settings.max_tokens
    return prepare_tables([rows], load_tokenizer(encoder), describe(encoder).prefixes, tokens, tokens, settings.negatives)


def _contrastive(phase: Merge, settings: Learned) -> Contrastive:
    """The loss, as a contrastive phase would have it."""
    return Contrastive.model_validate(
        {
            "kind": "contrastive",
            "from": EncoderRef(phase.of[0]),
            "examples": (settings.examples,),
            "batch_size": settings.batch_size,
            "negatives": settings.negatives,
            "temperature": settings.temperature,
            "precision": "fp32",
        }
    )


def _state(folder: Path, scope: Scope, device: torch.device) -> State:
    """The parameters of a model that are merged, fp32 on the device."""
    found = load_model(folder).named_parameters()
    return {name: parameter.detach().to(device) for name, parameter in found if covers(name, scope)}


def _check_shapes(start: State, models: Sequence[State], origin: Path, folders: Sequence[Path]) -> None:
    wanted = {name: tensor.shape for name, tensor in start.items()}
    for folder, model in zip(folders, models, strict=True):
        if {name: tensor.shape for name, tensor in model.items()} != wanted:
            raise InputError(f"merge: {folder} has other tensors than the start {origin}; right would be models trained from the start")
