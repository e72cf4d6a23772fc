"""The loss before training by initialisation, against the plain computation; the model is left as it came."""

from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from transformers import BertForMaskedLM, PreTrainedTokenizerFast

from raysberta.models.head import load_head
from raysberta.models.load import load_encoder
from raysberta.training.masks import mask, pieces_of
from raysberta.training.mlm import IGNORED
from raysberta.vocabulary.first_loss import PROBABILITY, TOKENS, first_losses
from raysberta.vocabulary.initialise import install, rows, table
from raysberta.vocabulary.revise import apply, revise
from small_models import a_phase


def test_losses_are_those_of_the_plain_computation(small_folder: Path, unigram: PreTrainedTokenizerFast, russian: list[str]) -> None:
    settings = a_phase(learn=60)
    revision = revise(unigram, [russian], settings)
    model = load_encoder(small_folder)
    head, old = load_head(small_folder, model), table(model)
    assert head.dense is not None
    apply(model, revision, settings, 1, head=head)
    found = {"focus": (revision.new, 5 * torch.randn(len(revision.new), old.shape[1], generator=torch.Generator().manual_seed(0)))}
    texts, before = russian[:60], table(model).clone()
    losses = first_losses(model, head, revision, old, ("gaussian", "focus", "mean_of_pieces"), found, texts, 7)
    assert torch.equal(table(model), before)
    assert losses == first_losses(model, head, revision, old, losses, found, texts, 7)

    ids = revision.tokenizer(texts, truncation=True, max_length=TOKENS)["input_ids"]
    read, labels = mask(np.concatenate(ids), pieces_of(revision.tokenizer), PROBABILITY, np.random.default_rng((7, 0)))
    assert np.isin(labels, revision.new).sum() > 10, "new pieces are among what is predicted"
    cuts = np.cumsum([len(row) for row in ids])[:-1]
    for how, loss in losses.items():
        install(model, revision.tokenizer, rows(old, revision.origins, how, 7, found))
        with torch.no_grad():
            logits = torch.cat(
                [
                    head(model(input_ids=torch.from_numpy(part)[None], return_dict=True).last_hidden_state[0], table(model))
                    for part in np.split(read, cuts)
                ]
            )
        plain = F.cross_entropy(logits, torch.from_numpy(labels), ignore_index=IGNORED).item()
        assert abs(loss - plain) < 0.02 * plain, how
    assert losses["focus"] > losses["mean_of_pieces"] + 0.3, "rows that are far too long are seen to be bad"


def test_the_head_of_a_trimmed_vocabulary_says_what_it_said(
    small_folder: Path, unigram: PreTrainedTokenizerFast, russian: list[str]
) -> None:
    """Old pieces keep row and bias: their logits are those of the whole checkpoint, at their new ids."""
    corpus = russian[:100]
    revision = revise(unigram, [corpus], a_phase(trim=True))
    whole = BertForMaskedLM.from_pretrained(small_folder, dtype=torch.float32).eval()
    model = load_encoder(small_folder)
    head = load_head(small_folder, model)
    apply(model, revision, a_phase(trim=True), 1, head=head)
    assert len(head.bias) == len(revision.texts) < len(unigram)
    with torch.no_grad():
        for text in sorted(corpus, key=len)[:40:2]:
            old, new = (torch.tensor([tokenizer(text)["input_ids"]]) for tokenizer in (unigram, revision.tokenizer))
            expected = whole(input_ids=old).logits[0][:, revision.origins]
            assert torch.allclose(head(model(input_ids=new).last_hidden_state[0], table(model)), expected, atol=1e-4)
