"""Test bridges between data distributions, against Gaussian pairs with a known joint law."""

import copy
import json
import math
import re
from dataclasses import dataclass, replace

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from strategies import log_floats

import scoresde
from scoresde import SDE, VPSDE, BrownianBridgeSDE, Facts, Field, Moments
from scoresde.errors import InvalidTypeError, InvalidValueError, NonFiniteError, ShapeError
from scoresde.objectives import dsm_loss
from scoresde.samplers import DDIM, Ancestral, Heun, MeanStart, Scipy
from scoresde.score import Centred, Unpaired
from scoresde.targets import Gaussian

TIGHT = Scipy("DOP853", rtol=1e-9, atol=1e-10, max_nfe=10**5)
Y = "y"


def normal(generator, *shape):
    return torch.randn(*shape, generator=generator, dtype=torch.float64)


@dataclass(frozen=True, eq=False)
class Pair:
    """Define the law given y, N(slope y + offset, cov), for y of the law N(0, I)."""

    slope: torch.Tensor
    offset: torch.Tensor
    cov: torch.Tensor

    @classmethod
    def of(cls, generator, d=2):
        root = normal(generator, d, d)
        return cls(
            normal(generator, d, d), normal(generator, d), root @ root.T + 0.1 * torch.eye(d)
        )

    def residual(self):
        """Return the law of x_0 - y."""
        return replace(self, slope=self.slope - torch.eye(len(self.offset)))

    def moments(self):
        return Moments(self.offset, cov=self.cov + self.slope @ self.slope.T)

    def at(self, alpha, sigma):
        eye = torch.eye(len(self.offset), dtype=torch.float64)
        return Pair(alpha * self.slope, alpha * self.offset, alpha**2 * self.cov + sigma**2 * eye)

    def score(self, sde):
        """Return the exact score given y."""
        return Conditional(self, sde)


class Conditional:
    """Define the score of a pair under an SDE, with y a condition."""

    def __init__(self, pair, sde):
        self.pair, self.sde = pair, sde
        d = len(pair.offset)
        self.facts = Facts(
            sde=sde, event_shape=(d,), moments=pair.moments(), conditions={Y: Field((d,))}
        )

    def __call__(self, x, t, condition):
        alpha, sigma = self.sde.at(t, x[:, :1])
        law = self.pair.at(alpha[..., None].double(), sigma[..., None].double())
        y = condition[Y].to(x)
        mean = (law.slope @ y[..., None].double())[..., 0] + law.offset[:, 0]
        return -torch.linalg.solve(law.cov, x.double() - mean).to(x)


def ends(sde):
    times = torch.tensor([sde.T, sde.eps], dtype=torch.float64)
    return [(float(a), float(s)) for a, s in zip(sde.alpha(times), sde.sigma(times), strict=True)]


def map_of(score, sde, sampler, d, **options):
    """Return a run without noise as an affine map: of the state at T, of y, and what is left."""
    width = ends(sde)[0][1]
    x = torch.cat([width * torch.eye(d), torch.zeros(d + 1, d)]).double()
    y = torch.cat([torch.zeros(d, d), torch.eye(d), torch.zeros(1, d)]).double()
    options |= dict(condition={Y: y}, x=x, seed=0, denoise=False)
    end = scoresde.sample(score, sde, sampler, **options)
    rows = (end[:-1] - end[-1]).T
    return rows[:, :d] / width, rows[:, d:], end[-1]


def through(law, found):
    """Return the law given y at eps, of that at T."""
    of_x, of_y, rest = found
    return Pair(of_x @ law.slope + of_y, of_x @ law.offset + rest, of_x @ law.cov @ of_x.T)


def gap(found, exact):
    """Return the largest error of the joint law of both, relative to its size."""
    parts = [(getattr(found, n) - getattr(exact, n)).abs().max() for n in ("slope", "offset")]
    own, right = (p.cov + p.slope @ p.slope.T for p in (found, exact))
    return float(max(*parts, (own - right).abs().max()) / max(1.0, right.abs().max()))


@pytest.mark.law(69)
@given(log_floats(0.3, 3), st.floats(0, 1), st.floats(0, 1))
def test_the_transition_of_the_brownian_bridge_is_the_closed_form(s, u, v):
    sde = BrownianBridgeSDE(s)
    early, late = sorted(sde.eps + (sde.T - sde.eps) * w for w in (u, v))
    a, var = sde.transition(early, late)
    assert math.isclose(a, (1 - late) / (1 - early), rel_tol=1e-9)
    known = s**2 * (1 - late) * (late - early) / (1 - early)
    assert math.isclose(var, known, rel_tol=1e-6, abs_tol=1e-12)


@given(log_floats(0.3, 100))
def test_the_noise_of_a_bridge_goes_from_a_hundredth_to_a_hundred_at_every_scale(s):
    ratios = [sigma / alpha for alpha, sigma in ends(BrownianBridgeSDE(s))]
    assert ratios == pytest.approx([100, 0.01], rel=1e-6)


@given(log_floats(0.3, 3), log_floats(0.3, 3))
def test_a_bridge_whose_scale_is_replaced_is_that_made_with_this_scale(s, other):
    """It had the T and the eps of the first."""
    sde = BrownianBridgeSDE(s)
    read = BrownianBridgeSDE(**json.loads(json.dumps(vars(sde))))
    for made in (sde, read, copy.deepcopy(sde)):
        assert replace(made, s=other) == BrownianBridgeSDE(other)
    own = BrownianBridgeSDE(s, T=0.99)
    assert replace(own, s=other) == BrownianBridgeSDE(other, T=0.99)


@pytest.mark.slow
@pytest.mark.law(69)
@pytest.mark.parametrize("s", [0.5, 2.0])
def test_the_joint_law_of_a_gaussian_pair_is_exact_with_y_a_condition(s):
    sde = BrownianBridgeSDE(s)
    pair = Pair.of(torch.Generator().manual_seed(2)).residual()
    first, last = (pair.at(*end) for end in ends(sde))
    found = through(first, map_of(pair.score(sde), sde, TIGHT, 2))
    assert gap(found, last) < 1e-6
    few, many = (
        gap(through(first, map_of(pair.score(sde), sde, Heun(), 2, steps=n)), last)
        for n in (40, 80)
    )
    assert many < 0.3 * few  # the second order, on a grid that is even in log-SNR
    even = sde.times(40, spacing="uniform")
    assert gap(through(first, map_of(pair.score(sde), sde, Heun(), 2, times=even)), last) > 2 * few


def unseeing(sde, cov):
    """Return the denoiser of states alone, for standard normal numbers with a covariance."""

    def denoiser(x, t):
        t, x64 = t.double()[:, None], x.double()
        alpha, var = 1 - t, sde.sigma(t) ** 2
        return ((alpha + t * cov) / (alpha**2 + t**2 + 2 * alpha * t * cov + var) * x64).to(x)

    return denoiser


@pytest.mark.slow
@pytest.mark.law(69)
def test_a_network_without_y_keeps_the_marginal_with_noise_and_never_the_joint_law():
    """Standard normal numbers of the covariance .6."""
    sde, cov = BrownianBridgeSDE(0.5), 0.6
    pair = Pair(*(torch.tensor(v).double() for v in ([[cov]], [0.0], [[1 - cov**2]]))).residual()
    first, last = (pair.at(*end) for end in ends(sde))
    score = Unpaired(unseeing(sde, cov), sde)
    # as a plain function, since samplers without noise refuse the score itself
    flow = through(first, map_of(lambda x, t, c: score(x, t, c), sde, TIGHT, 1))
    assert gap(flow, last) > 0.1
    assert float(flow.cov + (flow.slope + 1) ** 2) < 0.9  # the variance of x_0, which is 1
    n, draw = 20_000, torch.Generator().manual_seed(0)
    y = normal(draw, n, 1)
    x = (first.slope * y) + first.cov.sqrt() * normal(draw, n, 1)
    r = scoresde.sample(score, sde, Ancestral(), x=x, steps=150, condition={Y: y}, seed=0)
    assert abs(float((y + r).var()) - 1) < 5 * math.sqrt(2 / n) + 0.01
    assert float((y * (y + r)).mean()) > cov + 0.2


def test_samplers_without_the_noise_of_the_reverse_sde_refuse_a_network_without_y():
    score = Unpaired(unseeing(BrownianBridgeSDE(), 0.6), BrownianBridgeSDE())
    options = dict(shape=(1,), n=2, seed=0, condition={Y: torch.ones(2, 1)}, pilot=False)
    refused = []
    for name, method in scoresde.SAMPLERS.items():
        try:
            scoresde.Run.of(score, sampler=name, **options)
        except InvalidTypeError as error:
            assert "does not receive y" in str(error)  # noqa: PT017
            refused.append(name)
        assert (name in refused) != method.conditional
    assert {"heun", "ddim", "fast", "scipy", "pc"} < set(refused)
    with pytest.raises(scoresde.ScoreSDEError, match="not the gradient of a log-density"):
        scoresde.log_prob(score, None, torch.zeros(2, 1), condition={Y: torch.ones(2, 1)})
    with pytest.raises(InvalidValueError, match="needs the condition y"):
        scoresde.sample(score, sampler=Ancestral(), shape=(1,), steps=2, seed=0)
    shaped = Unpaired(score.score, score.sde, event_shape=(1,))
    with pytest.raises(InvalidValueError, match="needs the condition y"):
        scoresde.sample(shaped, sampler=Ancestral(), steps=2, seed=0)
    one = scoresde.sample(shaped, sampler=Ancestral(), steps=2, n=3, seed=0, condition={Y: [1.0]})
    assert one.shape == (3, 1)
    with pytest.raises(NonFiniteError, match="condition 'y', the end of a bridge, holds NaN"):
        scoresde.sample(shaped, sampler=Ancestral(), steps=2, seed=0, condition={Y: [math.nan]})


@pytest.mark.parametrize("s", [1e-200, 1e-30, 1e-2, 1e150, 1e200])
def test_a_scale_of_a_bridge_that_is_too_small_or_too_large_is_named(s):
    with pytest.raises(InvalidValueError, match=re.escape(f"{s!r}")):
        BrownianBridgeSDE(s)


def test_the_mean_start_is_that_of_the_law_given_y_for_one_evaluation():
    sde, draw = BrownianBridgeSDE(), torch.Generator().manual_seed(1)
    pair = Pair.of(draw).residual()
    score, y = pair.score(sde), 3 * normal(draw, 5, 2)
    mean = y @ pair.slope.T + pair.offset
    (alpha, sigma), _ = ends(sde)
    options = dict(sampler=MeanStart(DDIM()), steps=3, n=5, seed=4, condition={Y: y})
    options |= dict(dtype=torch.float64)
    run = scoresde.Run.of(score, **options)
    plain = scoresde.Run.of(score, **options | dict(sampler=DDIM()))
    start = next(iter(plain.states())).x
    moved = start + alpha * (mean - pair.offset)
    right = scoresde.sample(score, sampler=DDIM(), steps=3, x=moved, condition={Y: y}, seed=4)
    found, far = run.draw(), plain.draw()
    scale = (far.x - right).abs().max()
    assert (found.x - right).abs().max() < 1e-3 * scale > 1e-3 * alpha / sigma
    assert found.nfe == far.nfe + 1 == MeanStart(DDIM()).cost(3) + 1


def test_a_limit_of_evaluations_holds_with_the_mean_start():
    score = Gaussian([1.0], std=0.5).at(BrownianBridgeSDE())
    for method in (MeanStart(Heun()), MeanStart(scoresde.samplers.ProbabilityFlow())):
        run = scoresde.Run.of(score, sampler=method, nfe=60, n=2, seed=0)
        assert run.draw().nfe <= 60


@pytest.mark.slow
def test_density_and_loss_of_the_residual_are_those_of_its_law_given_y():
    sde, draw = BrownianBridgeSDE(0.7), torch.Generator().manual_seed(3)
    pair = Pair.of(draw).residual()
    score, y = pair.score(sde), normal(draw, 4, 2)
    r = y @ pair.slope.T + pair.offset + normal(draw, 4, 2)
    found = scoresde.log_prob(score, sde, r, t=sde.eps, condition={Y: y}, method="exact")
    law = pair.at(*ends(sde)[1])
    exact = torch.distributions.MultivariateNormal(y @ law.slope.T + law.offset, law.cov)
    torch.testing.assert_close(found.value, exact.log_prob(r), rtol=0, atol=0.01)
    n = 4000
    y = normal(draw, n, 2)
    r = y @ pair.slope.T + pair.offset + normal(draw, n, 2) @ torch.linalg.cholesky(pair.cov).T

    def wrong(x, t, condition):
        return score(x, t, {Y: condition[Y].flip(0)})

    losses = [
        dsm_loss(s, sde, r, condition={Y: y}, generator=torch.Generator().manual_seed(0)).mean()
        for s in (score, wrong)
    ]
    assert losses[0] < losses[1]


# A centre that moves


@dataclass(frozen=True)
class VPBridge(SDE):
    """Define the residual of a bridge of DDBM-VP about its moving centre."""

    T: float = 0.99
    base = VPSDE()

    def q(self, t):
        end = torch.ones((), dtype=torch.float64)
        return torch.exp(self.base.log_snr(end).to(t) - self.base.log_snr(t))

    def alpha(self, t):
        return self.base.alpha(t) * (1 - self.q(t))

    def sigma(self, t):
        return self.base.sigma(t) * (1 - self.q(t)).sqrt()

    def centre(self, t, condition):
        t = t.double()
        end = self.base.alpha(torch.ones((), dtype=torch.float64))
        return (self.q(t) * self.base.alpha(t) / end)[:, None] * condition[Y]


@pytest.mark.slow
def test_the_score_of_a_bridge_about_its_moving_centre_ends_in_the_exact_joint_law():
    sde, pair = VPBridge(), Pair.of(torch.Generator().manual_seed(5))
    about = pair.score(sde)

    def bridge(x, t, condition):
        return about((x.double() - sde.centre(t, condition)).to(x), t, condition)

    bridge.facts = about.facts
    score = Centred(bridge, sde.centre)
    first, last = (pair.at(*end) for end in ends(sde))
    found = through(first, map_of(score, sde, TIGHT, 2))
    assert gap(found, last) < 1e-6
    assert scoresde.facts(score) == about.facts


@pytest.mark.parametrize(
    ("shift", "error", "match"),
    [
        (lambda t, c: (t[:, None] + 1) * c[Y], InvalidValueError, "must be 0 at t = 0"),
        (lambda t, c: t[:, None] * c[Y].repeat(1, 2), ShapeError, "the shape of the states"),
        (lambda t, c: None, InvalidTypeError, "must return a tensor"),
        (lambda t, c: t[:, None] * c[Y] * 1j, InvalidTypeError, "must be floating point"),
        (lambda t, c: t[:, None] * c["z"], InvalidValueError, "uses a condition 'z'"),
        (lambda t: t, InvalidTypeError, "it needs t"),
    ],
)
def test_an_invalid_shift_is_named(shift, error, match):
    with pytest.raises(error, match=match):
        Centred(lambda x, t, condition: -x, shift)(
            torch.ones(2, 2), torch.ones(2), {Y: torch.ones(2, 2)}
        )
