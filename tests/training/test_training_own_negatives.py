"""NV-Embed's second stage: a query's own hard negatives alone; and its latent attention learns. Against plain loops in float64."""

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from variants import batches_of_two_sources, contrastive_settings

from raysberta.models.model import Model, load_model
from raysberta.models.parts import LatentAttention
from raysberta.training.contrastive import ContrastiveModel, make_batch
from raysberta.training.encode import ChunkedEncoder

SHORT = {"temperature": 0.05, "chunk_tokens": 96, "precision": "fp32", "negatives": 2}
CPU = torch.device("cpu")


def with_latents(tiny) -> Model:
    """Half of what NV-Embed is: states attend to latents before they are pooled."""
    model = load_model(tiny, dropout=0.0)
    torch.manual_seed(5)
    model.parts.append(LatentAttention(model.dimension, latents=4, heads=2, head_width=8, factor=1))
    return model.double().train()


def vector(model: Model, ids: np.ndarray) -> torch.Tensor:
    """Of one text alone: NV-Embed's equations written out, state by state."""
    text = torch.from_numpy(ids.astype(np.int64))[None]
    states = model.encoder(input_ids=text, attention_mask=torch.ones_like(text)).last_hidden_state[0]
    part: LatentAttention = model.parts[0]  # type: ignore[assignment]
    known = part.latent_norm(part.latents)
    keys, values = part.keys_values(known).split(2 * 8, dim=-1)
    found = []
    for state in states:
        query = part.queries(part.norm(state))
        heads = []
        for head in range(2):
            own = slice(8 * head, 8 * head + 8)
            weights = torch.stack([query[own] @ key[own] for key in keys]) / 8**0.5
            heads.append(sum(weight * value[own] for weight, value in zip(weights.softmax(0), values, strict=True)))
        attended = part.out(torch.cat(heads)) + state
        wide, gate = part.up(part.second_norm(attended)).chunk(2)
        found.append(part.down(wide * F.gelu(gate)) + attended)
    return F.normalize(torch.stack(found).mean(0), dim=0)


def plain(model: Model, examples, batches) -> torch.Tensor:
    """Mean over device batches of the mean over rows of -log softmax of the positive among the row's own documents."""
    losses = []
    for rows in batches:
        of_rows = []
        for row in rows:
            query, positive = (vector(model, examples.tokens[side[row]]) for side in (examples.query, examples.positive))
            friends = examples.friends[examples.raw[examples.query[row]]]
            wrong = [text for text in examples.negatives[row].tolist() if examples.raw[text] not in friends]
            wrong = [text for text in wrong if examples.group[row] not in examples.groups[examples.raw[text]]]
            scores = torch.stack([query @ positive, *(query @ vector(model, examples.tokens[text]) for text in wrong)]) / 0.05
            of_rows.append(torch.logsumexp(scores, 0) - scores[0])
        losses.append(torch.stack(of_rows).mean())
    return torch.stack(losses).mean()


@pytest.mark.parametrize("recompute", [False, True])
def test_loss_and_gradient_are_those_of_a_plain_loop_over_a_querys_own_documents(tiny, examples, recompute):
    model, settings = with_latents(tiny), contrastive_settings(in_batch_negatives=False, **SHORT)
    batches = [rows[:4] for rows in batches_of_two_sources(examples)]
    trained = ContrastiveModel(ChunkedEncoder(model, "fp32", recompute), settings)
    loss = trained(make_batch(examples, batches, settings, CPU))
    loss.backward()
    found = {name: value.grad.clone() for name, value in model.named_parameters() if value.grad is not None}
    model.zero_grad()
    expected = plain(model, examples, batches)
    expected.backward()
    assert loss.item() == pytest.approx(expected.item(), rel=1e-10) and loss.item() > 0.01
    assert {"parts.0.latents", "parts.0.keys_values.weight", "parts.0.down.bias"} <= found.keys()
    for name, value in model.named_parameters():
        if value.grad is not None:
            assert (found[name] - value.grad).abs().max() <= 1e-8 * value.grad.abs().max() + 1e-13, name


def test_in_batch_negatives_push_apart_what_belongs_together_and_without_them_nothing_does(tiny, examples):
    """Planted: a batch whose rows are of one kind. A gradient on another row's documents comes from in-batch negatives alone."""
    batches, settings = batches_of_two_sources(examples)[:1], contrastive_settings(**SHORT)
    for in_batch in (True, False):
        asked = settings.model_copy(update={"in_batch_negatives": in_batch})
        (batch,) = make_batch(examples, batches, asked, CPU).batches
        own = (batch.relations < 0).sum(1)
        assert (own.tolist() == [len(examples.negatives[row]) for row in batches[0]]) != in_batch


def test_settings_that_leave_no_negatives_are_refused():
    for changes in ({"negatives": 0}, {"same_tower": True}, {"cross_device_negatives": True}):
        with pytest.raises(ValueError, match="right would be"):
            contrastive_settings(in_batch_negatives=False, **changes)
