"""Test composed posteriors of several observations: exact for Gaussians, finite elsewhere."""

import math

import pytest
import torch
from conditional import Linear
from hypothesis import given
from hypothesis import strategies as st
from strategies import SDES, generators, sdes, times_of

import scoresde
from scoresde import Condition, Moments, Noise, Wrapped, facts
from scoresde.errors import InvalidTypeError, InvalidValueError, ShapeError, UnknownNameError
from scoresde.guidance import compose
from scoresde.guidance.spread import gaussian_of
from scoresde.samplers import ProbabilityFlow

VP = scoresde.VPSDE()


def linear(sde=VP, seed=0, **sizes):
    return Linear.drawn(sde, torch.Generator().manual_seed(seed), **sizes)


def observed(score, n, seed=0):
    """n observations of one draw of the prior, `(n, k)`."""
    generator = torch.Generator().manual_seed(seed)
    normal = torch.randn(n + 1, 8, generator=generator, dtype=torch.float64)
    x = score.mean + torch.linalg.cholesky(score.prior) @ normal[0, : len(score.mean)]
    k = len(score.a)
    return score.a @ x + normal[1:, :k] @ torch.linalg.cholesky(score.noise).T


@pytest.mark.slow
@pytest.mark.law(67)
@pytest.mark.parametrize("covariance", ["moments", "jacobian"])
@given(sdes(continuous=True), generators(), st.integers(1, 12), st.data())
def test_composition_is_exact_for_gaussians(covariance, sde, generator, n, data):
    d, k = data.draw(st.tuples(st.integers(1, 3), st.integers(1, 2)))
    score = Linear.drawn(sde, generator, d=d, k=k)
    y = observed(score, n)
    made = compose(score, {"y": y}, score.moments(n) if covariance == "moments" else covariance)
    exact = score.posterior(*y).at(sde)
    t = data.draw(times_of(sde))
    x = exact.target.sample(4, sde, t, generator=generator, dtype=torch.float64)
    right = exact(x, t)
    with torch.no_grad():
        found = made(x, t.expand(4))
    # what the Jacobian adds to -1 at much noise has so many digits fewer
    lost = float((-sde.log_snr(t)).exp()) if covariance == "jacobian" else 1.0
    tolerance = 1e-8 + 1e-14 * lost
    torch.testing.assert_close(
        found, right, rtol=tolerance, atol=tolerance * float(right.abs().max())
    )


class PlainSum(Wrapped):
    """The sum of the scores, which is right at no noise alone: what compose is compared with."""

    def __init__(self, score, y):
        super().__init__(score)
        self.y = y

    def __call__(self, x, t):
        each = [self.score(x, t, {"y": y.expand(len(x), -1)}) for y in self.y]
        return sum(each) - (len(each) - 1) * self.score(x, t)


@pytest.mark.slow
@pytest.mark.law(67)
def test_the_plain_sum_of_ten_scores_has_a_hundredth_of_the_variance():
    """Prior and noise of variance 1: by the flow .5^10, where 1 / 11 is right."""
    sde = scoresde.VESDE(1e-3, 300.0)
    one = torch.eye(1, dtype=torch.float64)
    score = Linear(sde, torch.zeros(1).double(), one, one, one)
    y = torch.linspace(-1, 2, 10, dtype=torch.float64)[:, None]
    exact = score.posterior(*y)
    times = torch.tensor([sde.T, sde.eps], dtype=torch.float64)

    def variance(made):
        x = torch.tensor([[0.0], [1.0]], dtype=torch.float64) * 300.0
        flow = ProbabilityFlow(rtol=1e-9, atol=1e-9, max_nfe=10_000)
        end = scoresde.sample(made, sde, flow, x=x, times=times, denoise=False, seed=0)
        return float((end[1] - end[0]) ** 2), float(end[0])

    composed, mean = variance(compose(score, {"y": y}, score.moments(10)))
    assert composed == pytest.approx(1 / 11, rel=1e-4)
    start = exact.at(sde)
    assert mean == pytest.approx(float(exact.means[0]), rel=1e-2)
    assert variance(start)[0] == pytest.approx(composed, rel=1e-6)
    plain, _ = variance(PlainSum(score, y))
    assert plain == pytest.approx(0.5**10, rel=1e-3)
    assert plain < 0.011 * composed


@pytest.mark.slow
@pytest.mark.parametrize("name", ["ve", "vp", "edm", "flow", "user"])
def test_moments_are_estimated_from_512_draws_of_the_flow(name):
    score = linear(SDES[name], d=3, k=2)
    width = 5 * math.sqrt(2 / 512)  # five standard errors of a variance
    for condition, exact in (
        (None, score.prior),
        (Condition({"y": observed(score, 1)}), score.cov),
    ):
        found = gaussian_of(score, condition).cov.double()
        white = torch.linalg.inv(torch.linalg.cholesky(exact))
        ratio = torch.linalg.eigvalsh(white @ found @ white.T)
        assert ((ratio - 1).abs() < width).all(), ratio


@pytest.mark.parametrize("name", ["ve", "vp", "edm", "flow", "user"])
def test_the_draws_of_which_moments_are_estimated_follow_the_flow(name):
    """They are the noise, of covariance W, times the root of the prior's covariance."""
    score = linear(SDES[name], d=3)
    found = gaussian_of(score).cov.double()
    var, axes = torch.linalg.eigh(score.prior)
    white = axes / var.sqrt() @ axes.T
    noise = Noise.of(0, 512).normal(torch.empty(512, 3), math.inf).double()
    torch.testing.assert_close(white @ found @ white, noise.T.cov(), rtol=0.05, atol=0.05)


def test_a_precision_that_would_be_negative_is_a_tenth_of_the_priors():
    score = linear(d=2)
    wide = [Moments(score.mean, cov=c * score.prior) for c in (1, 9, 100, 3)]
    y = observed(score, 3)
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(5, 2, generator=generator, dtype=torch.float64)
    t = torch.tensor(0.4, dtype=torch.float64).expand(5)
    prior, snr = score.prior.inverse(), VP.log_snr(t[0]).exp() * torch.eye(2).double()
    lack = (0.1 + 2 - 1 / 9 - 1 / 100 - 1 / 3) * prior
    weighted = score(x, t) @ (lack - 2 * (prior + snr))
    for row, moments in zip(y, wide[1:], strict=True):
        weighted += score(x, t, {"y": row.expand(5, -1)}) @ (moments.cov.inverse() + snr)
    right = torch.linalg.solve(0.1 * prior + snr, weighted.T).T
    found = compose(score, {"y": y}, wide)(x, t)
    torch.testing.assert_close(found, right, rtol=1e-9, atol=1e-9)


class Modes:
    """Two modes, of which an observation makes one as likely as the other: wider than the prior."""

    def __init__(self):
        self.laws = [
            scoresde.targets.GaussianMixture([w, 1 - w], [[-2.0], [2.0]], stds=0.3).at(VP)
            for w in (0.97, 0.5)
        ]
        self.facts = scoresde.Facts(
            sde=VP, event_shape=(1,), conditions={"y": scoresde.Field((1,))}
        )

    def __call__(self, x, t, condition=None):
        return self.laws[condition is not None](x, t)


@pytest.mark.parametrize("covariance", ["moments", "jacobian"])
def test_an_empty_batch_is_composed(covariance):
    score = linear()
    given = score.moments(2) if covariance == "moments" else covariance
    made = compose(score, {"y": observed(score, 2)}, given)
    assert made(torch.zeros(0, 2).double(), torch.zeros(0).double()).shape == (0, 2)


@pytest.mark.slow
@pytest.mark.parametrize("covariance", ["gauss", "jacobian"])
def test_posteriors_wider_than_the_prior_stay_finite(covariance):
    made = compose(Modes(), {"y": torch.zeros(4, 1)}, covariance)
    x = scoresde.sample(made, sampler="em", n=64, steps=60, seed=0, dtype=torch.float64)
    assert (x.abs() < 5).all()


def test_a_jacobian_of_no_density_is_named():
    class Steep:
        facts = scoresde.Facts(sde=VP, event_shape=(2,))

        def __call__(self, x, t, condition=None):
            return -9 * x / VP.sigma(t.double())[:, None].to(x) ** 2

    made = compose(Steep(), {"y": torch.zeros(2, 1)}, "jacobian")
    with pytest.raises(InvalidValueError, match=r'at t = 1 the Jacobian .* covariance="gauss"'):
        scoresde.sample(made, seed=0)


@pytest.mark.parametrize("mode", [torch.no_grad, torch.inference_mode])
def test_the_jacobian_of_a_detached_score_is_refused(mode):
    class Detached(Wrapped):
        def __call__(self, x, t, condition=None):
            return self.ask(self.score, x, t, condition).detach()

    score, x, t = linear(), torch.ones(1, 2).double(), torch.tensor([0.5]).double()
    with (
        mode(),
        pytest.raises(InvalidValueError, match=r"cannot be differentiated.*inference_mode"),
    ):
        compose(Detached(score), {"y": observed(score, 2)}, "jacobian")(x, t)


def test_observed_conditions_are_no_longer_taken_and_others_are_passed_on():
    seen = []

    class Two:
        facts = scoresde.Facts(
            sde=VP,
            event_shape=(2,),
            conditions={"y": scoresde.Field((1,)), "label": scoresde.Classes(3)},
        )

        def __call__(self, x, t, condition=None):
            seen.append({k: v[0].tolist() for k, v in (condition or {}).items()})
            return -x

    made = compose(Two(), {"y": torch.tensor([[1.0], [2.0]])}, [Moments(0.0, var=1.0)] * 3)
    assert facts(made).conditions == {"label": scoresde.Classes(3)}
    found = scoresde.Run.of(
        made, sampler="ddim", steps=1, denoise=False, n=2, seed=0, condition={"label": 1}
    ).draw()
    assert seen == [{"label": 1}, {"label": 1, "y": [1.0]}, {"label": 1, "y": [2.0]}]
    assert (found.nfe, found.passes) == (1, 3)
    with pytest.raises(UnknownNameError, match="unknown condition 'y'"):
        scoresde.sample(made, condition={"y": torch.zeros(1, 1)}, seed=0)


def test_a_given_prior_is_evaluated_for_the_prior_score():
    score, other = linear(), linear()
    made = compose(score, {"y": observed(score, 2)}, score.moments(2), prior=other)
    made(torch.zeros(1, 2).double(), torch.tensor([0.5]).double())
    assert (score.given, score.free, other.given, other.free) == (2, 0, 0, 1)


@pytest.mark.parametrize(
    ("make", "error", "message"),
    [
        (lambda s: compose(s, {}), InvalidValueError, "no observation"),
        (lambda s: compose(s, {"y": torch.zeros(0, 1)}), InvalidValueError, "no observation"),
        (lambda s: compose(s, {"z": torch.zeros(2, 1)}), UnknownNameError, "unknown condition 'z'"),
        (lambda s: compose(s, {"y": torch.zeros(2, 3)}), ShapeError, "n = 2"),
        (lambda s: compose(s, {"y": torch.zeros(1)}), ShapeError, "needs as many rows"),
        (lambda s: compose(s, {"y": torch.zeros(2, 1, dtype=int)}), InvalidTypeError, "floating"),
        (lambda s: compose(s, [1.0]), InvalidTypeError, "observations"),
        (lambda s: compose(s, {"y": torch.zeros(2, 1)}, "gaus"), UnknownNameError, "gaus"),
        (
            lambda s: compose(s, {"y": torch.zeros(2, 1)}, s.moments(1)),
            ShapeError,
            "need 3 moments",
        ),
        (
            lambda s: compose(s, {"y": torch.zeros(1, 1)}, [Moments(0.0, var=0.0)] * 2),
            InvalidValueError,
            "singular",
        ),
        (
            lambda s: compose(s, {"y": torch.zeros(1, 1)}, [Moments(torch.zeros(3), var=1.0)] * 2),
            ShapeError,
            "one event has shape",
        ),
        (lambda s: compose(lambda x, t: -x, {"y": torch.zeros(1, 1)}), InvalidValueError, "no SDE"),
        (
            lambda s: compose(linear(d=257), {"y": torch.zeros(1, 1)}),
            InvalidValueError,
            "at most 256 dimensions; give the moments",
        ),
        (
            lambda s: compose(
                s, {"y": torch.zeros(1, 1)}, s.moments(1), prior=linear(scoresde.VESDE())
            ),
            InvalidValueError,
            "belongs to",
        ),
        (
            lambda s: compose(s, {"y": torch.zeros(1, 1)}, s.moments(1), prior=linear(d=3)),
            ShapeError,
            "events",
        ),
    ],
)
def test_impossible_compositions_are_refused_when_they_are_made(make, error, message):
    with pytest.raises(error, match=message):
        make(linear())
