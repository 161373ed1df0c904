"""Heads of the shared space against numbers worked out by hand."""

import math

import pytest
import torch

from generation.encoders.heads import (
    CodebookHead,
    Embedding,
    GaussianHead,
    PooledHead,
    gaussian_distance,
    likeness,
    masked_mean,
    sparsemax,
    unit,
)
from generation.errors import ConfigError

DIMS = {"image": 6, "audio": 4}
ALL = {
    "pooled": lambda: PooledHead(DIMS, 8),
    "gaussian": lambda: GaussianHead(DIMS, 8),
    "codebook": lambda: CodebookHead(DIMS, 8, 16, temperature=1.0),
}


@pytest.fixture(autouse=True)
def in_double_precision():
    """What was worked out by hand is compared to a millionth."""
    torch.set_default_dtype(torch.float64)
    yield
    torch.set_default_dtype(torch.float32)


def close(found, wanted):
    torch.testing.assert_close(found, wanted, atol=1e-6, rtol=0)


@pytest.fixture(params=ALL)
def head(request):
    torch.manual_seed(0)
    return ALL[request.param]()


@pytest.mark.parametrize(
    ("scores", "shares"),
    [
        ([0.0, 0.0], [0.5, 0.5]),
        ([1.0, 0.6, -5.0], [0.7, 0.3, 0.0]),  # threshold (1.6 - 1) / 2
        ([3.0, 1.0, 0.0], [1.0, 0.0, 0.0]),
        ([0.3, 0.2, 0.1], [13 / 30, 1 / 3, 7 / 30]),  # threshold (0.6 - 1) / 3
        ([-7.0], [1.0]),
    ],
)
def test_sparsemax_by_hand(scores, shares):
    scores, shares = torch.tensor([scores, scores]), torch.tensor(shares)
    close(sparsemax(scores)[0], shares)
    close(sparsemax(scores + 40)[1], shares)


def test_sparsemax_is_the_nearest_point_of_the_simplex():
    torch.manual_seed(0)
    scores = torch.randn(200, 7)
    ours = sparsemax(scores)
    close(ours.sum(1), torch.ones(200))
    assert (ours >= 0).all()
    rivals = torch.distributions.Dirichlet(torch.full((7,), 0.4)).sample((500,))
    best = (ours - scores).square().sum(1)
    assert ((rivals[:, None] - scores).square().sum(2).amin(0) >= best - 1e-12).all()


def test_sparsemax_lets_a_gradient_through_its_support_only():
    scores = torch.tensor([1.0, 0.6, -5.0], requires_grad=True)
    (slope,) = torch.autograd.grad(sparsemax(scores)[0], scores)
    close(slope, torch.tensor([0.5, -0.5, 0.0]))


def test_the_distance_of_gaussians_by_hand():
    a = Embedding(torch.tensor([[1.0, 0.0]]), torch.tensor([[0.0, math.log(0.25)]]))
    b = Embedding(
        torch.tensor([[0.0, 1.0], [1.0, 0.0]]),
        torch.tensor([[math.log(0.5), math.log(2.0)], [-math.inf, -math.inf]]),
    )
    # means 2 apart and variances 1.25 + 2.5; means 0 apart and 1.25 + 0
    expected = torch.tensor([[5.75, 1.25]])
    close(gaussian_distance(a, b), expected)
    close(likeness(a, b), -expected)
    close(a.uncertainty, torch.tensor([1.5]))


def test_the_distance_of_gaussians_is_that_of_draws():
    torch.manual_seed(1)
    a, b = (Embedding(unit(torch.randn(1, 5)), torch.randn(1, 5)) for _ in range(2))
    draws = [e.vector + torch.exp(e.log_variance / 2) * torch.randn(200_000, 5) for e in (a, b)]
    sampled = (draws[0] - draws[1]).square().sum(1).mean()
    assert float(gaussian_distance(a, b)) == pytest.approx(float(sampled), rel=0.02)


def test_a_point_and_a_gaussian_are_not_compared():
    point, gaussian = Embedding(torch.ones(1, 2)), Embedding(torch.ones(1, 2), torch.ones(1, 2))
    with pytest.raises(ConfigError, match="one head"):
        likeness(point, gaussian)
    assert float(point.uncertainty) == 0


def test_codes_are_mixed_by_hand():
    head = CodebookHead({"audio": 2}, 4, 3, temperature=0.5)
    head.query["audio"] = torch.nn.Linear(2, 4, bias=False)
    with torch.no_grad():
        head.query["audio"].weight.copy_(torch.eye(4, 2))
        head.codes.copy_(torch.tensor([[1.0, 0, 0, 0], [0, 1, 0, 0], [-1, -1, 0, 0]]))
    tokens = torch.tensor([[[1.0, 0.0], [0.0, 0.6]]])
    given = "audio", tokens, torch.ones(1, 2, dtype=torch.bool)
    # dot products over sqrt(4) and over 0.5 are the plain dot products
    close(head.scores(*given), torch.tensor([[[1.0, 0.0, -1.0], [0.0, 0.6, -0.6]]]))
    found = head(*given)  # best of the tokens: 1, 0.6, -0.6
    close(found.weights, torch.tensor([[0.7, 0.3, 0.0]]))
    close(found.vector, torch.tensor([[0.7, 0.3, 0.0, 0.0]]))


def test_filling_up_changes_nothing(head):
    torch.manual_seed(0)
    tokens = torch.randn(3, 5, 4)
    mask = torch.ones(3, 5, dtype=torch.bool)
    longer = torch.cat([tokens, torch.randn(3, 4, 4)], 1)
    more = torch.cat([mask, torch.zeros(3, 4, dtype=torch.bool)], 1)
    close(head("audio", tokens, mask).vector, head("audio", longer, more).vector)


def test_as_published_what_fills_up_may_win():
    torch.manual_seed(0)
    ours, theirs = (CodebookHead(DIMS, 8, 6, temperature=1.0, compat=c) for c in ("right", "mvrl"))
    theirs.load_state_dict(ours.state_dict())
    tokens, mask = torch.randn(1, 2, 4), torch.tensor([[True, False]])
    real = ours("audio", tokens[:, :1], mask[:, :1])
    query = ours.query["audio"](tokens[:, :1])[0, 0] @ ours.codes.T / math.sqrt(8)
    close(real.weights[0], sparsemax(query))
    assert (query < 0).any()
    close(theirs("audio", tokens, mask).weights[0], sparsemax(query.clamp(0)))


def test_every_head_embeds_every_modality(head):
    for name, size in DIMS.items():
        found = head(name, torch.randn(3, 5, size), torch.ones(3, 5, dtype=torch.bool))
        assert found.vector.shape == (3, 8)
        assert found[1:].vector.shape == (2, 8)
        assert likeness(found, found).shape == (3, 3)
        if found.weights is None:
            close(found.vector.norm(dim=1), torch.ones(3))


def test_gaussians_begin_narrow():
    torch.manual_seed(0)
    head = GaussianHead(DIMS, 32)
    found = head("image", torch.zeros(1, 1, 6), torch.ones(1, 1, dtype=torch.bool))
    assert -8 < float(found.log_variance.detach().mean()) < -2


def test_the_mean_is_that_of_the_tokens_that_are_there():
    tokens = torch.tensor([[[1.0], [3.0], [100.0]]])
    assert float(masked_mean(tokens, torch.tensor([[True, True, False]]))) == 2
    assert float(masked_mean(tokens, torch.zeros(1, 3, dtype=torch.bool))) == 0


def test_a_sample_without_tokens_is_refused():
    with pytest.raises(ConfigError, match="no token"):
        CodebookHead(DIMS, 8, 4)("audio", torch.ones(1, 2, 4), torch.zeros(1, 2, dtype=torch.bool))
