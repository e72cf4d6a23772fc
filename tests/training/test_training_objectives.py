import numpy as np
import pytest
import torch
import torch.nn.functional as F

from raysberta.training.objectives import documents_of, info_nce, relations_of


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
    return numbers([(0, 0, 10), (0, 1, 11), (0, 2, 12)], negatives=[[20, 21], [21, 11], []], friends=[[0, 10, 21], [1, 11, 12], [2, 12]])


def test_each_distinct_document_stands_once_and_false_negatives_are_left_out(three_rows):
    rows = np.asarray([0, 1, 2])
    documents = documents_of(three_rows, rows)
    assert documents.tolist() == [10, 11, 12, 20, 21]
    assert relations_of(three_rows, rows, documents).tolist() == [[1, -1, -1, -1, 0], [-1, 1, 0, -1, -1], [-1, -1, 1, -1, -1]]


def test_what_shares_a_group_is_no_negative(numbers):
    """Row 0's group holds text 12, a positive of another row, and text 21, mined for another row; its own positive stays one."""
    examples = numbers([(0, 0, 10), (0, 1, 11), (0, 2, 12)], [[20], [21], []], [[], [], []], {10: [0, 1], 12: [2, 0], 21: [0, 5]})
    rows = np.asarray([0, 1, 2])
    documents = documents_of(examples, rows)
    assert documents.tolist() == [10, 11, 12, 20, 21]
    assert relations_of(examples, rows, documents).tolist() == [[1, -1, 0, -1, 0], [0, 1, -1, -1, -1], [-1, -1, 1, -1, -1]]
