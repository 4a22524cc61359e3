"""Test samplers of posteriors: particles and split Gibbs sampling, with a small bias."""

import math

import pytest
import torch
from methods import ALL
from oracle import affine

import scoresde
from scoresde import VPSDE, Condition, Run
from scoresde.errors import InvalidTypeError, InvalidValueError, NonFiniteError
from scoresde.guidance import Linear, posterior
from scoresde.samplers import (
    DDIM,
    PC,
    Ancestral,
    EulerMaruyama,
    Heun,
    Impute,
    Langevin,
    MeanStart,
    Parallel,
    Particles,
    ProbabilityFlow,
    Restart,
    RestartInterval,
    SASolver,
    SplitGibbs,
)
from scoresde.sde.spacings import even_times
from scoresde.targets import Gaussian, GaussianMixture

VP = scoresde.VPSDE()
PAIR = Gaussian([0.0, 0.0], var=[1.0, 0.5])
A, Y = torch.tensor([[1.0, 0.5]]), torch.tensor([0.8])
MODES = GaussianMixture([0.5, 0.5], [[2.0, 1.0], [-2.0, -1.0]], stds=[0.6, 0.3])
STD = 1.5
# like others of the list, or slow
MORE = {"torchsde_srk", "torchsde_heun", "torchsde_reversible", "fixed", "mala"}


def run(method, target=MODES, std=STD, **options):
    score = posterior(target.at(VP), Linear(A, std), iterations=1)
    options = dict(n=3, steps=6, seed=0, condition={"measurement": Y}) | options
    return Run.of(score, sampler=method, **options)


def share(x):
    """Return the share of samples in the first mode."""
    return float((MODES.assign(x) == 0).double().mean())


def weighted(steps, n=20_000):
    """The share under the posterior of the prior as it is discretised, by importance."""
    times = Particles().times(VP, steps, MODES.moments())
    x = scoresde.sample(MODES.at(VP), sampler="ancestral", n=n, times=times, seed=1)
    weights = torch.exp(-((Y - x @ A.T) ** 2).sum(1) / (2 * STD**2))
    return float(weights[MODES.assign(x) == 0].sum() / weights.sum())


@pytest.mark.slow
@pytest.mark.law(71)
def test_more_particles_have_less_bias():
    """Of the weights of two modes: at 1, 2 and 16 particles it is about 0.11, 0.045 and 0.007."""
    # for these numbers the differences exceed the margin of 2 by 4 standard deviations
    steps, n = 20, 6000
    right = weighted(steps)
    plain = run("ancestral", n=n, steps=None, times=Particles().times(VP, steps, MODES.moments()))
    draws = [plain, *(run(Particles(Ancestral(), k=k), n=n, steps=steps) for k in (2, 16))]
    gaps = [abs(share(one.draw().x) - right) for one in draws]
    noise = math.sqrt(right * (1 - right) / n)
    assert gaps[0] > gaps[1] + 2 * noise
    assert gaps[1] > gaps[2] + 2 * noise
    assert gaps[2] < 4 * noise


@pytest.mark.slow
@pytest.mark.law(71)
def test_sweeps_lead_two_particles_to_the_law_of_the_discretised_model():
    steps, n = 20, 800
    right = weighted(steps)
    noise = math.sqrt(right * (1 - right) / n)
    swept = run(Particles(Ancestral(), k=2, sweeps=4), n=n, steps=steps).draw()
    assert abs(share(swept.x) - right) < 4 * noise
    # four particles, some of which are drawn anew on the way
    swept = run(Particles(Ancestral(), k=4, sweeps=2), n=n, steps=steps).draw()
    assert abs(share(swept.x) - right) < 4 * noise


@pytest.mark.slow
def test_the_evidence_of_a_gaussian_is_exact_to_its_monte_carlo_error():
    exact = PAIR.posterior(A, 0.7, Y)
    found = run(Particles(k=16, evidence=True), PAIR, 0.7, n=600, steps=20).draw()
    gap, bar = found.info["log_evidence"] - exact.log_evidence, found.info["log_evidence_error"]
    ratio = gap.exp()
    assert abs(float(ratio.mean()) - 1) < 5 * float(ratio.std()) / 600**0.5 + 0.01
    assert (gap.abs() < bar).double().mean() > 0.95
    assert bar.median() < 4 * 1.96 * ratio.std()  # where the steps have no bias
    assert (found.info["ess"] > 12).all()
    mean, cov = found.x.double().mean(0), found.x.double().T.cov()
    assert (mean - exact.means[0]).abs().max() < 0.15
    assert (cov - exact.moments().cov).abs().max() < 0.15


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore:log_evidence_error is infinite:UserWarning")
@pytest.mark.parametrize("sampler", [Ancestral(), DDIM(1.0), EulerMaruyama()])
def test_the_particles_of_a_sample_do_not_depend_on_other_samples(sampler):
    method = Particles(sampler, k=4, sweeps=1, evidence=True)
    options = dict(n=5, dtype=torch.float64)
    whole, parts = run(method, **options).draw(), run(method, **options).draw(batch_size=2)
    later = run(method, **options | dict(n=2, first=3)).draw()
    evaluations = 4 * (7 * 2 + 4) + 1
    assert (whole.nfe, whole.passes) == (evaluations, 3 * evaluations)
    assert method.cost(6) + 1 == whole.nfe
    for other, rows in ((parts, slice(None)), (later, slice(3, None))):
        torch.testing.assert_close(other.x, whole.x[rows], rtol=1e-9, atol=1e-9)
        for name, values in whole.info.items():
            torch.testing.assert_close(other.info[name], values[rows], rtol=1e-9, atol=1e-9)
    assert len(whole.x.unique()) == whole.x.numel()
    assert set(whole.info) == {"ess", "log_evidence", "log_evidence_error", "residual"}


@pytest.mark.long
@pytest.mark.filterwarnings("ignore:log_evidence_error is infinite:UserWarning")
def test_the_bar_of_the_evidence_covers_where_the_bias_of_the_steps_is_larger_than_the_noise():
    prior, sde = Gaussian([0.0], var=1.0), scoresde.VESDE()
    row, y = torch.ones(1, 1), [3.0]
    right = prior.posterior(row, 0.2, y).log_evidence
    score = posterior(prior.at(sde), Linear(row, 0.2))
    for variance, sign in (("small", -1), ("large", 1)):
        method = Particles(Ancestral(variance), k=64, evidence=True)
        gaps, bars = [], []
        for steps in (40, 160):  # where the bias is of the first order
            info = (
                Run.of(
                    score, sampler=method, steps=steps, n=40, seed=0, condition={"measurement": y}
                )
                .draw()
                .info
            )
            gaps.append(sign * (info["log_evidence"] - right))
            bars.append(info["log_evidence_error"])
            assert (gaps[-1].abs() < bars[-1]).double().mean() > 0.93
        assert gaps[0].mean() > 3 * gaps[0].std()  # a bar of the noise alone is too short
        assert bars[1].median() < 0.6 * bars[0].median()
    # the kernel of the data has no such bias
    info = Run.of(
        score, sampler=Particles(k=64, evidence=True), steps=40, n=40, seed=0,
        condition={"measurement": y},
    ).draw().info  # fmt: skip
    assert abs(float((info["log_evidence"] - right).mean())) < 0.1 * float(gaps[0].mean()) + 0.05


def test_a_limit_of_evaluations_holds_for_particles_with_their_evidence():
    for method in (Particles(k=4, evidence=True), Particles(k=3, sweeps=2, evidence=True)):
        for nfe in range(0, 200, 7):
            steps = method.steps_for(nfe)
            assert steps == 0 or method.cost(steps) <= nfe
            assert method.cost(steps + 1) > nfe
    with pytest.raises(InvalidValueError, match="at least two steps"):
        run(Particles(k=4, evidence=True), steps=1).draw()


@pytest.mark.parametrize(
    "method", [Particles(k=2), SplitGibbs(Ancestral(), 0.5, k=3), MeanStart(Ancestral())]
)
def test_a_run_has_as_many_states_as_its_sampler_foretells(method):
    states = list(run(method, steps=6).states())
    assert len(states) == 1 + method.states(6) + 1


def test_the_states_of_particles_are_the_trajectory_of_one():
    states = list(run(Particles(k=4)).states())
    assert len(states) == 8
    assert len({s.x.data_ptr() for s in states[:-1]}) == 7
    assert [float(s.t) for s in states[:-1]] == Particles().times(VP, 6, MODES.moments()).tolist()
    assert run(Particles(k=2), n=0).draw().x.shape == (0, 2)


@pytest.mark.slow
def test_other_likelihoods_weigh_particles_too():
    prior = Gaussian([0.5], var=1.0)
    score = posterior(prior.at(VP), lambda y, x: (y * x - x.exp()).sum(1), shape=(1,), iterations=1)
    grid = torch.linspace(-5, 6, 20_001, dtype=torch.float64)[:, None]
    logs = prior.log_prob(grid) + (4 * grid - grid.exp()).sum(1)
    mean = float(logs.softmax(0) @ grid[:, 0])
    evidence = float(logs.logsumexp(0)) + math.log(11 / 20_000)
    method = Particles(EulerMaruyama(), k=16, evidence=True)
    given = {"measurement": torch.tensor([4.0])}
    found = Run.of(score, sampler=method, n=500, steps=40, seed=0, condition=given).draw()
    assert abs(float(found.x.mean()) - mean) < 0.1
    assert abs(float(found.info["log_evidence"].exp().mean().log()) - evidence) < 0.05
    # a constant of the likelihood is one of the evidence, and of nothing else
    score = posterior(
        prior.at(VP), lambda y, x: 3 + (y * x - x.exp()).sum(1), shape=(1,), iterations=1
    )
    more = Run.of(score, sampler=method, n=4, steps=40, seed=0, condition=given).draw()
    torch.testing.assert_close(more.x, found.x[:4], rtol=1e-4, atol=1e-4)
    gap = more.info["log_evidence"] - found.info["log_evidence"][:4]
    torch.testing.assert_close(gap, torch.full_like(gap, 3.0), rtol=1e-3, atol=1e-3)


@pytest.mark.parametrize(
    "make",
    [
        lambda: Particles(Heun()),
        lambda: Particles(ProbabilityFlow()),
        lambda: Particles(DDIM()),
        lambda: Particles(Langevin()),
        lambda: Particles("ancestral"),
        lambda: Impute(SplitGibbs(Ancestral(), 0.3)),
        lambda: Impute(MeanStart(Heun())),
        lambda: PC(Particles(k=2)),
        lambda: SplitGibbs(Heun(), 0.3),
        lambda: SplitGibbs(DDIM(), 0.3),
        lambda: SplitGibbs(DDIM(0.5), 0.3),
        lambda: SplitGibbs(PC(Ancestral()), 0.3),
        lambda: SplitGibbs(SASolver(), 0.3),
        lambda: SplitGibbs(Impute(Ancestral()), 0.3),
        lambda: Particles(Impute(Ancestral())),
        lambda: Particles(Parallel(Ancestral())),
        lambda: MeanStart(Particles(k=2)),
        lambda: MeanStart(MeanStart(Heun())),
        lambda: scoresde.sample(PAIR.at(VP), None, Particles(k=2), seed=0),
        lambda: scoresde.sample(PAIR.at(VP), None, SplitGibbs(Ancestral(), 0.3), seed=0),
        lambda: scoresde.sample(
            posterior(PAIR.at(VP), lambda y, x: -x.square().sum(1)), None,
            SplitGibbs(Ancestral(), 0.3), steps=2, seed=0, condition={"measurement": 0.0},
        ),
    ],
)  # fmt: skip
def test_samplers_that_particles_or_split_gibbs_cannot_use_are_refused(make):
    with pytest.raises(InvalidTypeError):
        make()


@pytest.mark.slow
def test_a_sampler_is_conditional_if_it_draws_what_follows_from_a_given_state():
    """By the mean and variance of 25 steps from one state, within four standard errors."""
    start, end = torch.tensor([0.5, 0.2], dtype=torch.float64)
    law = Gaussian([0.0], std=0.5).at(VP)
    later, earlier = (VP.alpha(t) ** 2 / 4 + VP.sigma(t) ** 2 for t in (start, end))
    gain = VP.transition(end, start)[0] * earlier / later
    var = earlier - gain**2 * later
    rest = Restart(Ancestral(), (RestartInterval(k=0),))
    more = {"pc0": PC(Ancestral(), k=0), "pc": PC(Ancestral()), "rest": rest, "own": SASolver()}
    for name, method in (ALL | more).items():
        if not method.stochastic or not method.stepwise or method.adaptive or name in MORE:
            continue
        x = scoresde.sample(
            law, None, method, x=torch.ones(2500, 1), times=torch.linspace(0.5, 0.2, 26),
            seed=0, denoise=False, progress=False,
        )  # fmt: skip
        near = [abs(x.mean() / gain - 1) < 0.24, abs(x.var() / var - 1) < 0.12]
        assert all(near) == method.conditional, (name, x.mean() / gain, x.var() / var)


@pytest.mark.parametrize(
    "make",
    [
        lambda: Particles(k=1),
        lambda: Particles(sweeps=-1),
        lambda: SplitGibbs(Ancestral(), 0.0),
        lambda: SplitGibbs(Ancestral(), 0.3, -1),
        lambda: run(SplitGibbs(Ancestral(), 1e-4)),
        lambda: run(SplitGibbs(Ancestral(), 1e4)),
    ],
)
def test_an_impossible_number_is_refused(make):
    with pytest.raises(InvalidValueError):
        make()


# Split Gibbs sampling


def stationary(rho, std, steps=300):
    """Mean and variance of the law that an alternation leaves alone, one dimension."""
    prior = Gaussian([0.5], var=0.8)
    score = posterior(prior.at(VP), Linear(torch.eye(1), std), iterations=1)
    method = SplitGibbs(EulerMaruyama(), rho)
    way = method.prior_times(VP, even_times(VP, steps))

    def alternated(x, noise):
        given = Condition({"measurement": torch.ones(len(x), 1, dtype=torch.float64)})
        rsde = VP.reverse(score, moments=prior.moments(), condition=given)
        return method.alternated(rsde, method.prior(rsde), x, way, noise)

    found = affine(alternated)
    exact = prior.posterior(torch.eye(1), std, [1.0]).moments().at(*ends(VP.eps))
    spread = exact.var if exact.cov is None else exact.cov
    return (
        float(found.b / (1 - found.a) - exact.mean),
        float(found.variance / (1 - found.a**2) - spread),
    )


def ends(t):
    time = torch.tensor(t, dtype=torch.float64)
    return VP.alpha(time), VP.sigma(time)


@pytest.mark.law(72)
def test_the_bias_of_split_gibbs_sampling_is_that_of_wider_noise():
    """std^2 + rho^2 in the place of std^2: of the second order in rho."""
    std, gaps = 0.6, []
    for rho in (0.2, 0.4):
        mean, var = stationary(rho, std)
        gaps.append((mean, var))
        gains = [0.8 / (0.8 + s**2) for s in (std, math.sqrt(std**2 + rho**2))]
        means, spreads = [0.5 + 0.5 * g for g in gains], [0.8 * (1 - g) for g in gains]
        for found, (small, large) in ((mean, means), (var, spreads)):
            assert abs(found - (large - small)) < 0.1 * abs(large - small) + 2e-3
    for small, large in zip(*gaps, strict=True):
        assert 3 < large / small < 5
        # the bias at width 0, extrapolated from two widths
        assert abs(4 * small - large) / 3 < 0.3 * abs(small)


def test_a_run_of_split_gibbs_sampling_is_counted_and_reported():
    method = SplitGibbs(Ancestral(), 0.5, k=3)
    found = run(method, n=4, dtype=torch.float64)
    whole, parts = found.draw(), found.draw(batch_size=3)
    torch.testing.assert_close(whole.x, parts.x, rtol=1e-9, atol=1e-9)
    way = len(method.prior_times(VP, found.times)) - 1
    # the prior's evaluations are one pass each, those of the posterior three
    assert whole.nfe == 6 + 3 * way + 1 <= method.cost(6) + 1
    assert whole.passes == 3 * 7 + 3 * way
    assert whole.info["residual"].max() < 1e-9
    assert len(list(found.states())) == 1 + 6 + 3 + 1


def test_split_gibbs_sampling_may_begin_with_particles():
    """Whose weights of the modes a few alternations leave as they are."""
    first = Particles(k=4)
    method = SplitGibbs(Ancestral("moments"), 0.3, k=2, start=first)
    found = run(method, n=40, steps=10, dtype=torch.float64)
    drawn = found.draw()
    assert {"ess", "residual"} <= drawn.info.keys()
    way = len(method.prior_times(VP, found.times)) - 1
    assert drawn.nfe == first.cost(10) + 2 * way + 1 <= method.cost(10) + 1
    assert len(list(found.states())) == 1 + method.states(10) + 1
    assert not method.takes_start
    chain = SplitGibbs(Ancestral("moments"), 0.3, k=0, start=first)
    plain = run(chain, n=40, steps=10, dtype=torch.float64).draw()
    assert abs(share(drawn.x) - share(plain.x)) < 0.1


def test_particles_take_no_start_and_split_gibbs_no_times_above_rho():
    prior = Gaussian([0.0, 0.0], var=1.0).at(VPSDE())
    made = posterior(prior, Linear(torch.tensor([[1.0, 0.0]]), 0.3))
    given = {"measurement": [1.0]}
    with pytest.raises(InvalidValueError, match="draws its initial states itself"):
        scoresde.sample(
            made, None, Particles(Ancestral(), 4), x=torch.zeros(2, 2), seed=0, condition=given
        )
    with pytest.raises(InvalidValueError, match="not below rho"):
        scoresde.sample(
            made, None, SplitGibbs(Ancestral(), 0.02, 3), times=[1.0, 0.8, 0.6], seed=0,
            condition=given,
        )  # fmt: skip


@pytest.mark.parametrize("rows", [[[1.0, 0.5], [1.0, 0.5]], [[0.0, 0.0]]])
def test_a_measurement_without_a_density_causes_a_warning(rows):
    score = posterior(PAIR.at(VP), Linear(torch.tensor(rows), 0.0))
    y = {"measurement": torch.full((len(rows),), 0.5)}
    method = Particles(k=2, evidence=True)
    with pytest.warns(UserWarning, match="log_evidence is infinite"):
        Run.of(score, sampler=method, n=1, steps=2, seed=0, condition=y).draw()


@pytest.mark.filterwarnings("ignore:the samples are:UserWarning")
def test_weights_of_an_unlikely_measurement_are_numbers_or_an_error():
    """They were NaN, in silence, and so were ess and the evidence."""
    with pytest.warns(UserWarning, match="log_evidence_error is infinite for 3 of 3 samples"):
        info = run(Particles(k=3, evidence=True), condition={"measurement": [1e5]}).draw().info
    assert (info.pop("log_evidence_error") == math.inf).all()
    assert all(value.isfinite().all() for value in info.values())
    with pytest.raises(NonFiniteError, match="extremely improbable"):
        run(Particles(k=3), std=1e-6, condition={"measurement": [1e9]}).draw()
