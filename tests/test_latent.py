"""Test scores of an autoencoder's codes: units, draws, and the bound on the log-density."""

import math

import pytest
import torch
from torch import nn
from torch.testing import assert_close

import scoresde
from scoresde import VPSDE, Latent, Moments, from_network, log_prob, sample
from scoresde.data import Data
from scoresde.errors import InvalidTypeError, InvalidValueError, NonFiniteError, ShapeError
from scoresde.likelihood import latent_elbo
from scoresde.score import codes
from scoresde.targets import Gaussian
from scoresde.units import Standardize

SDE = VPSDE()
# x = W e + b + s noise with orthogonal columns of W, so that the posterior has independent entries
W = torch.tensor([[1.0, 2.0], [2.0, -1.0], [0.0, 1.0], [0.0, 0.0]]).double()
W[:, 1] -= W[:, 0] * (W[:, 0] @ W[:, 1]) / (W[:, 0] @ W[:, 0])
B = torch.tensor([0.5, -1.0, 0.0, 2.0]).double()
S, MEAN, VAR = 0.3, torch.tensor([1.0, -2.0]).double(), torch.tensor([0.5, 3.0]).double()
UNITS = Standardize((0.8, -2.5), (0.6, 1.9))
PRECISION = 1 / VAR + (W**2).sum(0) / S**2
X = MEAN @ W.T + B + torch.randn(5, 4, generator=torch.Generator().manual_seed(0)).double()


def posterior(x):
    """Mean and standard deviation of the codes of samples, exact."""
    return ((x - B) @ W / S**2 + MEAN / VAR) / PRECISION, PRECISION.rsqrt().expand(len(x), 2)


def wider(x):
    mean, std = posterior(x)
    return mean + 0.05, 1.2 * std


def decoder(e):
    return e @ W.T.to(e) + B.to(e)


def prior():
    """The exact score of the codes in the units of UNITS, as a network that predicts the noise."""
    shift, scale = (torch.tensor(v).double() for v in (UNITS.shift, UNITS.scale))
    exact = Gaussian((MEAN - shift) / scale, var=VAR / scale**2)
    return from_network(
        lambda x, t: -SDE.at(t, x)[1] * exact.at(SDE)(x, t), SDE, "eps", transform=UNITS,
        event_shape=(2,), moments=exact.moments(),
    )  # fmt: skip


def exact_density(x):
    cov = W @ VAR.diag() @ W.T + S**2 * torch.eye(4)
    return Moments(decoder(MEAN[None])[0], cov=cov).log_prob(x)


FEW = dict(rtol=1e-5, atol=1e-5)


def test_the_bound_is_the_log_density_where_the_encoder_is_the_posterior():
    found = latent_elbo(Latent(prior(), posterior, decoder), X, std=S, draws=2, **FEW)
    gap = (found.value - exact_density(X)).abs()
    assert (gap <= found.error + 1e-6).all()
    assert (gap < 1e-4).all()
    assert found.dimensions == 4
    assert set(found.parts) == {"draws", "solver", "probes", "heat", "prior"}


@pytest.mark.long
def test_the_bound_is_below_by_the_divergence_of_the_encoder_from_the_posterior():
    few = dict(rtol=1e-3, atol=1e-3, error="estimate")
    found = latent_elbo(Latent(prior(), wider, decoder), X, std=S, draws=16, **few)
    (a, s), (b, t) = wider(X), posterior(X)
    apart = (t.log() - s.log() + (s**2 + (a - b) ** 2) / (2 * t**2) - 0.5).sum(1)
    assert (apart > 0.1).all()
    # twice the 95 % half-width, for five samples; far below what is missing in all
    gap = (found.value + apart - exact_density(X)).abs()
    assert (gap <= 2 * found.error).all()
    assert gap.mean() < apart.mean()


def test_samples_in_units_are_decoded_and_others_are_codes_of_the_score():
    score = Latent(prior(), posterior, decoder)
    options = dict(sampler="ddim", n=3, steps=4, seed=0)
    z = sample(prior(), **options)
    assert torch.equal(sample(score, **options), z)
    found = sample(score, **options, units=True)
    assert_close(found, decoder(UNITS.inverse(z)))
    assert score.facts.event_shape == (2,)
    assert score.facts.moments is not None
    first = next(scoresde.trajectory(score, **options, units=True))
    assert first.x.shape == (3, 4)


def test_log_densities_are_those_of_the_codes_and_never_of_the_samples():
    score = Latent(prior(), posterior, decoder)
    z = score.encode(X, seed=3)
    ours, theirs = (log_prob(s, None, z, **FEW).value for s in (score, prior()))
    assert_close(ours, theirs)
    with pytest.raises(InvalidValueError, match="this score takes codes, not samples"):
        log_prob(score, None, Data(X))
    with pytest.raises(InvalidValueError, match="this score takes codes, not samples"):
        score.facts.transform.log_det((2,))
    with pytest.raises(ShapeError):
        log_prob(score, None, X)


def test_the_units_of_codes_are_those_of_draws_and_not_of_means():
    """An encoder whose means have a std of .68, and whose draws have one of 1."""
    x = torch.randn(4000, 1, generator=torch.Generator().manual_seed(0))
    encoder = lambda x: (0.68 * x, torch.full_like(x, (1 - 0.68**2) ** 0.5))  # noqa: E731
    (scale,) = Data(codes(encoder, x)).standardized().transform.scale
    assert scale == pytest.approx(1, abs=6 / math.sqrt(2 * 4000))
    (scale,) = Data(codes(lambda x: encoder(x)[0], x)).standardized().transform.scale
    assert scale == pytest.approx(0.68 * float(x.std()), rel=1e-3)


def test_a_code_is_a_function_of_the_seed_and_the_number_of_the_sample():
    encoder = lambda x: (x, torch.ones_like(x))  # noqa: E731
    x = torch.zeros(130, 2)
    whole = codes(encoder, x, seed=5)
    assert torch.equal(codes(encoder, x[70:], seed=5, first=70), whole[70:])
    assert torch.equal(codes(encoder, x[:0]), whole[:0])
    assert not torch.equal(codes(encoder, x, seed=6), whole)
    assert torch.equal(codes(lambda x: 2 * x, x), 2 * x)


def test_encoder_and_decoder_run_in_evaluation_mode():
    class Part(nn.Module):
        def __init__(self):
            super().__init__()
            self.layer, self.modes = nn.Linear(2, 2), []

        def forward(self, x):
            self.modes.append(self.training)
            return self.layer(x.float())

    with torch.random.fork_rng(devices=[]):
        encoder, out = Part(), Part()
    score = Latent(prior(), encoder, out)
    assert set(scoresde.score.modules(score)) >= {encoder, out}
    score.encode(X[:, :2].float())
    sample(score, sampler="ddim", n=2, steps=2, seed=0, units=True)
    assert (encoder.modes, out.modes) == ([False], [False])
    assert encoder.training
    assert out.training


@pytest.mark.parametrize(
    ("encoder", "error", "message"),
    [
        (lambda x: None, InvalidTypeError, "what the encoder returns must be a tensor"),
        (lambda x: (x, x, x), InvalidTypeError, "their mean and standard deviation"),
        (lambda x: (), InvalidTypeError, "their mean and standard deviation"),
        (lambda x: x[:1], ShapeError, "returns 1 rows for 5 samples"),
        (lambda x: (x, x[:, :1]), ShapeError, "the shapes must be equal"),
        (lambda x: (x, -x.abs()), InvalidValueError, "the logarithm v of a variance"),
        (lambda x: x / 0, NonFiniteError, "what the encoder returns"),
        (
            lambda x: (x, torch.full_like(x, torch.finfo(x.dtype).max)),
            NonFiniteError,
            "draws of codes overflow torch.float..: .* standard deviations of up to",
        ),
    ],
)
def test_an_encoder_that_returns_something_else_is_told_so(encoder, error, message):
    with pytest.raises(error, match=message):
        codes(encoder, X)


def test_parts_that_change_their_input_in_place_change_no_samples_and_no_bound():
    x = X.clone()
    changing = Latent(
        prior(), lambda x: posterior(x.sub_(1).add_(1)), lambda e: decoder(e) + 0 * e.zero_().sum()
    )
    plain = Latent(prior(), posterior, decoder)
    found, right = (latent_elbo(score, x, std=S, draws=2) for score in (changing, plain))
    assert_close(found.value, right.value, rtol=1e-9, atol=1e-9)
    codes(lambda x: x.zero_(), x)
    assert torch.equal(x, X)
    assert latent_elbo(plain, x[:0], std=S).value.shape == (0,)


def test_what_a_bound_cannot_do_without_is_told():
    with pytest.raises(InvalidValueError, match="needs the posterior of the codes"):
        latent_elbo(Latent(prior(), lambda x: x[:, :2], decoder), X, std=S)
    with pytest.raises(ShapeError, match="the decoder returns"):
        latent_elbo(Latent(prior(), posterior, lambda e: e), X, std=S)
    with pytest.raises(InvalidTypeError):
        latent_elbo(prior(), X, std=S)
    with pytest.raises(InvalidTypeError):
        Latent(prior(), 3, decoder)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32])
def test_the_bound_is_exact_or_refused_where_the_rounding_of_codes_would_show(dtype):
    code = Gaussian(torch.tensor([1.5]), std=2.0)
    for std in (1e-6, 1e-3, 1.0):
        var = 1 / (1 / 4 + 1 / std**2)  # of the posterior of e for x = e + std * noise
        score = Latent(
            code.at(SDE),
            lambda x, var=var, std=std: (
                (var * (1.5 / 4 + x.double() / std**2)).to(x),
                torch.full_like(x, var**0.5),
            ),
            lambda e: e,
        )
        x = torch.tensor([[1.0], [2.5]], dtype=dtype)
        exact = Gaussian(torch.tensor([1.5]).double(), var=4 + std**2).log_prob(x.double())
        if std in {torch.float32: (1e-6,)}.get(dtype, (1e-6, 1e-3)):
            with pytest.raises(InvalidValueError, match="rounds a draw"):
                latent_elbo(score, x, std=std, **FEW)
            continue
        found = latent_elbo(score, x, std=std, **FEW)
        assert ((found.value - exact).abs() <= found.error + 1e-3).all()
