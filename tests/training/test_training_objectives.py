from dataclasses import replace

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from sentence_transformers.sentence_transformer.losses import AnglELoss, CoSENTLoss, MultipleNegativesRankingLoss

from raysberta.training.objectives import among_queries, angle, cosent, distillation, documents_of, info_nce, relations_of, scores_of


def vectors(rows: int, seed: int) -> torch.Tensor:
    return F.normalize(torch.randn(rows, 6, generator=torch.Generator().manual_seed(seed), dtype=torch.float64), dim=-1).requires_grad_()


def test_without_masks_it_is_the_cross_entropy_of_the_paper():
    queries, documents = vectors(4, 0), vectors(12, 1)
    relations = torch.full((4, 12), -1, dtype=torch.int8)
    relations[torch.arange(4), torch.arange(4)] = 1
    loss = info_nce(queries, documents, relations, 0.02)
    expected = F.cross_entropy(queries @ documents.T / 0.02, torch.arange(4))
    assert abs(loss.item() - expected.item()) < 1e-12
    ours, theirs = torch.autograd.grad(loss, queries), torch.autograd.grad(expected, queries)
    assert torch.allclose(ours[0], theirs[0], atol=1e-12)


def test_a_masked_document_has_no_influence():
    queries, documents = vectors(3, 0), vectors(5, 1)
    relations = torch.full((3, 5), -1, dtype=torch.int8)
    relations[torch.arange(3), torch.arange(3)] = 1
    relations[:, 4] = 0
    loss = info_nce(queries, documents, relations, 0.1)
    assert loss.item() == info_nce(queries, documents[:4], relations[:, :4], 0.1).item()
    assert torch.autograd.grad(loss, documents)[0][4].abs().max() == 0


def test_two_answers_are_two_terms_and_not_each_others_negatives():
    queries, documents = vectors(1, 0), vectors(3, 1)
    scores = (queries @ documents.T / 0.1)[0]
    loss = info_nce(queries, documents, torch.tensor([[1, 1, -1]], dtype=torch.int8), 0.1)
    terms = [torch.logsumexp(torch.stack([scores[place], scores[2]]), 0) - scores[place] for place in (0, 1)]
    assert loss.item() == pytest.approx(sum(term.item() for term in terms) / 2, abs=1e-12)


def test_a_query_without_negatives_has_loss_and_gradient_zero():
    queries, documents = vectors(1, 0), vectors(2, 1)
    loss = info_nce(queries, documents, torch.tensor([[1, 0]], dtype=torch.int8), 0.02)
    assert loss.item() == 0
    gradients = torch.autograd.grad(loss, (queries, documents))
    assert all(torch.isfinite(gradient).all() and gradient.abs().max() == 0 for gradient in gradients)
    with pytest.raises(ValueError, match="no positive"):
        info_nce(queries, documents, torch.tensor([[0, -1]], dtype=torch.int8), 0.02)


def test_the_margin_is_taken_off_the_positive():
    queries, documents = vectors(3, 0), vectors(5, 1)
    relations = torch.full((3, 5), -1, dtype=torch.int8).fill_diagonal_(1)
    logits = queries @ documents.T
    logits = (logits - 0.2 * torch.eye(3, 5, dtype=torch.float64)) / 0.05
    assert info_nce(queries, documents, relations, 0.05, 0.2).item() == pytest.approx(
        F.cross_entropy(logits, torch.arange(3)).item(), rel=1e-12
    )


def test_same_tower_terms_are_those_of_a_loop_over_the_pairs():
    """Masks included: query 1 is no negative of query 0, document 5 none of query 2's; document 4 is a hard negative, no one's positive."""
    queries, documents = vectors(4, 0), vectors(6, 1)
    relations = torch.full((4, 6), -1, dtype=torch.int8)
    relations[torch.arange(4), torch.arange(4)] = 1
    relations[2, 5] = relations[0, 1] = 0
    among = torch.full((4, 4), -1, dtype=torch.int8).fill_diagonal_(0)
    among[0, 1] = among[1, 0] = 0
    terms = []
    for row in range(4):
        against = [queries[row] @ documents[other] for other in range(6) if relations[row, other] < 0]
        against += [queries[row] @ queries[other] for other in range(4) if among[row, other] < 0]
        against += [documents[row] @ queries[other] for other in range(4) if among[row, other] < 0]
        against += [documents[row] @ documents[other] for other in range(4) if relations[row, other] < 0]
        scores = torch.stack([queries[row] @ documents[row], *against]) / 0.05
        terms.append(torch.logsumexp(scores, 0) - scores[0])
    expected = torch.stack(terms).mean()
    loss = info_nce(queries, documents, relations, 0.05, 0.0, among)
    assert loss.item() == pytest.approx(expected.item(), rel=1e-12)
    for ours, theirs in zip(
        torch.autograd.grad(loss, (queries, documents)), torch.autograd.grad(expected, (queries, documents)), strict=True
    ):
        assert torch.allclose(ours, theirs, rtol=1e-10, atol=1e-12)


def test_same_tower_terms_without_masks_are_those_of_sentence_transformers():
    queries, documents = vectors(5, 0), vectors(5, 1)
    relations = torch.full((5, 5), -1, dtype=torch.int8).fill_diagonal_(1)
    among = torch.full((5, 5), -1, dtype=torch.int8).fill_diagonal_(0)
    directions = ("query_to_doc", "query_to_query", "doc_to_query", "doc_to_doc")
    theirs = MultipleNegativesRankingLoss(torch.nn.Identity(), scale=20.0, directions=directions)
    loss = info_nce(queries, documents, relations, 0.05)
    assert loss.item() != info_nce(queries, documents, relations, 0.05, 0.0, among).item()
    expected = theirs.compute_loss_from_embeddings([queries, documents], None)
    # theirs counts the positive twice, as query to document and as document to query, so does this one
    logits = torch.cat([queries @ documents.T, queries @ queries.T, documents @ queries.T, documents @ documents.T], 1) / 0.05
    for block in (1, 3):
        logits[torch.arange(5), block * 5 + torch.arange(5)] = -torch.inf
    assert expected.item() == pytest.approx(F.cross_entropy(logits, torch.arange(5)).item(), rel=1e-9)
    logits[torch.arange(5), 2 * 5 + torch.arange(5)] = -torch.inf  # ours counts it once, as the papers do
    assert info_nce(queries, documents, relations, 0.05, 0.0, among).item() == pytest.approx(
        F.cross_entropy(logits, torch.arange(5)).item(), rel=1e-12
    )


def test_cosent_is_that_of_sentence_transformers():
    queries, documents = vectors(6, 0), vectors(6, 1)
    labels = torch.tensor([0.1, 0.9, 0.4, 0.4, 0.7, 0.2])
    scores = torch.full((6, 6), torch.nan)
    scores[torch.arange(6), torch.arange(6)] = labels
    loss = cosent(F.normalize(queries, dim=-1), documents, scores, 0.05)  # theirs normalises, and sends the gradient through that
    theirs = CoSENTLoss(torch.nn.Identity(), scale=20.0).compute_loss_from_embeddings([queries, documents], labels)
    assert loss.item() == pytest.approx(theirs.item(), rel=1e-9)
    ours, expected = torch.autograd.grad(loss, queries)[0], torch.autograd.grad(theirs, queries)[0]
    assert torch.allclose(ours, expected, rtol=1e-7, atol=1e-9)
    same = cosent(queries, documents, torch.full((6, 6), 0.3), 0.05)
    assert same.item() == 0 and torch.autograd.grad(same, queries, allow_unused=True)[0].abs().max() == 0


def test_the_guide_masks_what_it_finds_closer_than_the_positive(numbers):
    """Texts 0-2 are queries, 3-5 their positives, 6 a hard negative of the first; the guide's space has two dimensions."""
    examples = numbers([(0, 0, 3), (0, 1, 4), (0, 2, 5)], [[6], [], []])
    angles = np.deg2rad([0, 90, 0, 40, 70, 20, 30])
    guide = np.stack([np.cos(angles), np.sin(angles)], axis=1).astype(np.float16)
    guided = replace(examples, guide=guide)
    rows, documents = np.arange(3), np.arange(3, 7)
    assert relations_of(guided, rows, documents).tolist() == [[1, -1, -1, -1], [-1, 1, -1, -1], [-1, -1, 1, -1]]
    # to query 0 (0 degrees) texts 5 (20) and 6 (30) are closer than its positive (40); to query 2 nothing is closer than 20
    assert relations_of(guided, rows, documents, 0.0).tolist() == [[1, -1, 0, 0], [-1, 1, -1, -1], [-1, -1, 1, -1]]
    assert relations_of(guided, rows, documents, -0.15).tolist()[0] == [1, -1, 0, -1], "only what is 0.15 above: 0.94 is, 0.87 is not"
    assert relations_of(guided, rows, documents, 0.1).tolist()[2] == [-1, -1, 1, 0], "30 degrees are 0.07 below 20"
    guide[3] = 0
    assert relations_of(replace(examples, guide=guide), rows, documents, 0.0).tolist()[0] == [1, -1, -1, -1], "an unknown positive"


def test_angle_is_that_of_sentence_transformers():
    queries, documents = vectors(6, 2), vectors(6, 3)
    labels = torch.tensor([0.1, 0.9, 0.4, 0.4, 0.7, 0.2])
    scores = torch.full((6, 6), torch.nan)
    scores[torch.arange(6), torch.arange(6)] = labels
    loss = cosent(queries, documents, scores, 0.05, angle)
    theirs = AnglELoss(torch.nn.Identity(), scale=20.0).compute_loss_from_embeddings([queries, documents], labels)
    assert loss.item() == pytest.approx(theirs.item(), rel=1e-9)


def test_distillation_is_the_cross_entropy_to_the_teacher():
    queries, documents = vectors(3, 0), vectors(4, 1)
    scores = torch.tensor([[0.9, 0.1, torch.nan, 0.4], [torch.nan] * 4, [0.2, torch.nan, 0.8, torch.nan]])
    loss = distillation(queries, documents, scores, 0.05, 0.1)
    terms = []
    for row, columns in ((0, [0, 1, 3]), (2, [0, 2])):
        teacher = torch.softmax(scores[row, columns].double() / 0.1, 0)
        terms.append(-(teacher * torch.log_softmax(queries[row] @ documents[columns].T / 0.05, 0)).sum())
    assert loss.item() == pytest.approx((sum(terms) / 2).item(), rel=1e-9)
    nothing = distillation(queries, documents, torch.full((3, 4), torch.nan), 0.05, 0.1)
    assert nothing.item() == 0 and all(torch.isfinite(gradient).all() for gradient in torch.autograd.grad(nothing, (queries, documents)))


def test_half_precision_vectors_are_scored_in_float32():
    queries, documents = vectors(3, 0), vectors(3, 1)
    relations = torch.full((3, 3), -1, dtype=torch.int8).fill_diagonal_(1)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        loss = info_nce(queries.float(), documents.float(), relations, 0.02)
    assert loss.dtype == torch.float32
    assert loss.item() == pytest.approx(info_nce(queries, documents, relations, 0.02).item(), rel=1e-4)


@pytest.fixture
def three_rows(numbers):
    """Queries 0, 1, 2 with positives 10, 11, 12; 20 and 21 are mined for row 0, 21 and 11 for row 1."""
    return numbers(
        [(0, 0, 10), (0, 1, 11), (0, 2, 12)], negatives=[[20, 21], [21, 11], []], friends={0: [0, 10, 21], 1: [1, 11, 12], 2: [2, 12]}
    )


def test_each_distinct_document_stands_once_and_false_negatives_are_left_out(three_rows):
    rows = np.asarray([0, 1, 2])
    documents = documents_of(three_rows, rows)
    assert documents.tolist() == [10, 11, 12, 20, 21]
    assert relations_of(three_rows, rows, documents).tolist() == [[1, -1, -1, -1, 0], [-1, 1, 0, -1, -1], [-1, -1, 1, -1, -1]]


def test_what_shares_a_group_is_no_negative(numbers):
    """Row 0's group holds text 12, a positive of another row, and text 21, mined for another row; its own positive stays one."""
    examples = numbers([(0, 0, 10), (0, 1, 11), (0, 2, 12)], [[20], [21], []], {}, {10: [0, 1], 12: [2, 0], 21: [0, 5]})
    rows = np.asarray([0, 1, 2])
    documents = documents_of(examples, rows)
    assert documents.tolist() == [10, 11, 12, 20, 21]
    assert relations_of(examples, rows, documents).tolist() == [[1, -1, 0, -1, 0], [0, 1, -1, -1, -1], [-1, -1, 1, -1, -1]]


def test_queries_are_no_negatives_of_their_like(numbers):
    """Queries 0 and 1 answer each other in some row; query 2 is of query 0's group; query 3 is a stranger."""
    examples = numbers(
        [(0, 0, 10), (0, 1, 11), (0, 2, 12), (0, 3, 13)],
        friends={0: [0, 1, 10], 1: [0, 1, 11], 2: [2, 12], 3: [3, 13]},
        groups={2: [0, 2], 0: [0, 2]},
    )
    rows = np.arange(4)
    assert among_queries(examples, rows).tolist() == [[0, 0, 0, -1], [0, 0, -1, -1], [0, -1, 0, -1], [-1, -1, -1, 0]]


def test_scores_stand_at_a_rows_own_documents(three_rows):
    rows = np.asarray([1, 0])
    documents = documents_of(three_rows, rows)
    assert documents.tolist() == [11, 10, 21, 20]
    found = scores_of(three_rows, rows, documents)
    known = np.float32([0.1, 0.5 / 3 + 0.2 / 3, 0.3 + 0.2 / 3, 0.5])  # of 20, 21 for row 0; of 21, 11 for row 1
    assert found[1, [3, 2]].tolist() == pytest.approx(known[:2], rel=1e-5) and np.isnan(found[1, 0])
    assert found[0, 2] == pytest.approx(known[2], rel=1e-5) and found[0, 0] == pytest.approx(0.9)
    assert np.isnan(found[0, [1, 3]]).all()
