"""Test that `Parallel` gives the samples of the sampler in fewer rounds."""

import itertools

import pytest
import torch
from hypothesis import example, given, settings
from hypothesis import strategies as st
from methods import ALL, FIXED
from strategies import SDES

import scoresde
from scoresde import SAMPLERS
from scoresde.errors import InvalidTypeError, InvalidValueError, NonFiniteError
from scoresde.guidance import Linear, classifier_free, posterior
from scoresde.samplers import (
    DDIM,
    MALA,
    PC,
    AdaptiveSDE,
    Ancestral,
    DPMSolverPP,
    Heun,
    Impute,
    Parallel,
    Particles,
    ProbabilityFlow,
    Sampler,
    SplitGibbs,
    State,
)
from scoresde.targets import Gaussian, GaussianMixture

VP = scoresde.VPSDE()
MIXTURE = GaussianMixture([0.3, 0.7], means=[[0.0, 1.0], [2.0, -1.0]], stds=[0.3, 0.5])
NAMES = [name for name in FIXED if name != "mala"]


def drawn(score, sampler, n=3, steps=8, **options):
    return scoresde.Run.of(
        score, sampler=sampler, n=n, steps=steps, seed=0, dtype=torch.float64, **options
    ).draw()


@pytest.mark.slow
@pytest.mark.parametrize("name", NAMES)
def test_every_sampler_has_its_own_samples_in_at_most_as_many_rounds(name):
    sampler, score = ALL[name], MIXTURE.at(VP)
    alone = drawn(score, sampler)
    found = drawn(score, Parallel(sampler, 1e-11, width=20))
    torch.testing.assert_close(found.x, alone.x, rtol=0, atol=1e-7)
    assert (found.info["sequential"] <= alone.nfe - 1).all()
    assert found.nfe <= Parallel(sampler, width=20).cost(8) + 1


@pytest.mark.slow
@settings(max_examples=25)
@given(
    name=st.sampled_from(sorted(SDES)),
    sampler=st.sampled_from([DDIM(), Ancestral(), DPMSolverPP(), PC(), Heun()]),
    width=st.integers(1, 12),
    tolerance=st.floats(1e-10, 1.0),
)
@example(name="vp", sampler=DDIM(), width=1, tolerance=1.0)
def test_a_width_of_one_is_the_sampler_and_any_width_ends(name, sampler, width, tolerance):
    sde = SDES[name]
    if sampler.between and sde.levels:
        return
    score = MIXTURE.at(sde)
    alone = drawn(score, sampler, steps=4)
    found = drawn(score, Parallel(sampler, tolerance, width), steps=4)
    assert (found.info["sequential"] <= alone.nfe - 1).all()
    if width == 1:  # every evaluation is at a state that does not change again
        assert torch.equal(found.x, alone.x)
        assert found.nfe == alone.nfe


@pytest.mark.parametrize("name", ["ddim", "ancestral", "dpmpp_2m", "heun"])
def test_gaussian_data_of_one_variance_take_one_round(name):
    """The first model of the score is exact there."""
    score = Gaussian([1.0, -2.0, 0.5], std=0.7).at(VP)
    found = drawn(score, Parallel(SAMPLERS[name], 1e-9, width=100), steps=30)
    assert found.info["sequential"].tolist() == [1.0] * 3
    torch.testing.assert_close(found.x, drawn(score, SAMPLERS[name], steps=30).x)


@pytest.mark.parametrize("name", ["ddim", "dpmpp_2m", "er_sde"])
def test_the_difference_falls_with_the_tolerance(name):
    score, sampler = MIXTURE.at(VP), SAMPLERS[name]
    alone = drawn(score, sampler, n=40, steps=30).x
    rounds = []
    for tolerance in (1e-2, 1e-4, 1e-6):
        found = drawn(score, Parallel(sampler, tolerance), n=40, steps=30)
        assert (found.x - alone).square().mean().sqrt() <= 5 * tolerance
        rounds.append(found.info["sequential"].mean())
    assert rounds[0] < rounds[1] < rounds[2] < 15


@pytest.mark.parametrize("sampler", [DDIM(), Ancestral(), PC()])
def test_a_sample_does_not_depend_on_the_others_of_its_batch(sampler):
    """Though others need more rounds."""
    score, method = MIXTURE.at(VP), Parallel(sampler, 1e-6, 40)
    run = scoresde.Run.of(score, sampler=method, n=20, steps=12, seed=2, dtype=torch.float64)
    whole, parts = run.draw(), run.draw(batch_size=3)
    assert torch.equal(whole.x, parts.x)
    assert torch.equal(whole.info["sequential"], parts.info["sequential"])
    assert len(whole.info["sequential"].unique()) > 1


def test_states_come_in_order_at_the_times_of_the_sampler():
    options = dict(n=2, steps=6, seed=0, dtype=torch.float64)
    for sampler in (DDIM(), SAMPLERS["ald"]):
        alone = list(scoresde.trajectory(MIXTURE.at(VP), sampler=sampler, **options))
        method = Parallel(sampler, 1e-11, 3)
        found = list(scoresde.trajectory(MIXTURE.at(VP), sampler=method, **options))
        assert [state.t for state in found] == [state.t for state in alone]
        for a, b in zip(found, alone, strict=True):
            torch.testing.assert_close(a.x, b.x, rtol=0, atol=1e-8)
        assert [state.nfe for state in found] == sorted(state.nfe for state in found)


def test_conditions_guidance_measurements_and_masks_pass_through():
    score = posterior(MIXTURE.at(VP), Linear(torch.tensor([[1.0, 0.0]]), 0.5))
    seen = {"measurement": [1.5]}
    mask = {"known": torch.tensor([1.5, 0.0]), "mask": torch.tensor([1, 0])}
    for made, sampler, given_ in (
        (score, DDIM(), seen),
        (MIXTURE.at(VP), Impute(Ancestral(), resample=2), mask),
    ):
        alone = drawn(made, sampler, condition=given_)
        found = drawn(made, Parallel(sampler, 1e-11, 5), condition=given_)
        torch.testing.assert_close(found.x, alone.x, rtol=0, atol=1e-7)


@pytest.mark.slow
@pytest.mark.global_rng  # first weights
def test_the_passes_of_guidance_in_an_interval_are_those_of_each_time():
    model = scoresde.ScoreModel(
        scoresde.nn.MLP((2,), hidden=(8,), num_classes=3), VP, event_shape=(2,)
    )
    guided = classifier_free(model, 2.0, interval=(0.1, 1.0))
    given_ = {"label": torch.tensor([0, 1, 2])}
    options = dict(n=3, steps=8, seed=0, condition=given_)
    alone = scoresde.Run.of(guided, sampler="ddim", **options).draw()
    found = scoresde.Run.of(guided, sampler=Parallel(DDIM(), 1e-3, 1), **options).draw()
    assert found.passes == alone.passes
    wide = scoresde.Run.of(guided, sampler=Parallel(DDIM(), 1e-3, 4), **options).draw()
    torch.testing.assert_close(wide.x, alone.x, rtol=0, atol=1e-1)


@pytest.mark.parametrize("shape", [(), (0,), (1, 2, 3)])
@pytest.mark.parametrize("n", [0, 1, 2])
def test_events_of_any_shape_and_no_samples_are_drawn(shape, n):
    def score(x, t):
        return -x

    options = dict(n=n, shape=shape, steps=4, seed=0)
    alone = scoresde.sample(score, VP, "ddim", **options)
    found = scoresde.sample(score, VP, Parallel(DDIM(), 1e-6), **options)
    torch.testing.assert_close(found, alone)


@pytest.mark.parametrize(
    ("make", "error", "message"),
    [
        (lambda: Parallel(ProbabilityFlow()), InvalidTypeError, "chooses its steps itself"),
        (lambda: Parallel(AdaptiveSDE()), InvalidTypeError, "chooses its steps itself"),
        (lambda: Parallel(DDIM(), 0.0), InvalidValueError, "tolerance"),
        (lambda: Parallel(DDIM(), float("nan")), InvalidValueError, "tolerance"),
        (lambda: Parallel(DDIM(), width=0), InvalidValueError, "width"),
        (lambda: PC(Parallel(DDIM())), InvalidTypeError, "more than take steps along a grid"),
        (lambda: drawn(MIXTURE.at(VP), Parallel(PC(DDIM(), MALA()))), InvalidTypeError, "log_prob"),
        (
            lambda: drawn(MIXTURE.at(VP), Parallel(DDIM()), grad=True),
            InvalidTypeError,
            "not differentiable",
        ),
    ],
)
def test_samplers_that_cannot_run_in_parallel_are_refused(make, error, message):
    with pytest.raises(error, match=message):
        make()


@pytest.mark.parametrize("inner", [Particles(Ancestral(), 2), SplitGibbs(Ancestral(), 0.5)])
def test_samplers_of_posteriors_are_refused(inner):
    score = posterior(MIXTURE.at(VP), Linear(torch.tensor([[1.0, 0.0]]), 0.5))
    with pytest.raises(InvalidTypeError, match="Parallel"):
        drawn(score, Parallel(inner), condition={"measurement": [1.5]})


class InPlace(Sampler):
    """Changes its state in place, reports a number, and yields states without a count."""

    def step(self, rsde, x, t, s, noise):
        return x.copy_(DDIM().step(rsde, x, t, s, noise))

    def trajectory(self, rsde, x, times, noise):
        for t, s in itertools.pairwise(times):
            rsde.report("size", x.abs().amax(1))
            x = self.step(rsde, x, t, s, noise)
            yield State(s, x)


def test_a_sampler_that_changes_its_state_and_reports_numbers_has_its_own_samples():
    alone, found = (drawn(MIXTURE.at(VP), s) for s in (InPlace(), Parallel(InPlace(), 1e-11)))
    torch.testing.assert_close(found.x, alone.x, rtol=0, atol=1e-8)
    torch.testing.assert_close(found.info["size"], alone.info["size"], rtol=0, atol=1e-8)


class OwnTimes(Sampler):
    """Evaluates the score at a time that depends on its values."""

    def step(self, rsde, x, t, s, noise):
        share = float(rsde.score(x, t).sum().sigmoid())
        return x + rsde.score(x, t + share * (s - t))


class Copies(Sampler):
    def step(self, rsde, x, t, s, noise):
        return rsde.repeat(2).score(x.repeat_interleave(2, 0), t)[::2]


class First(Sampler):
    def step(self, rsde, x, t, s, noise):
        return x + rsde.score(x[:1], t)


@pytest.mark.parametrize(
    ("sampler", "message"),
    [
        (OwnTimes(), "number or the times"),
        (Copies(), "copies of a state"),
        (Parallel(DDIM()), "copies of a state"),
        (First(), "states of shape"),
    ],
)
def test_evaluations_that_are_not_modelled_are_refused(sampler, message):
    with pytest.raises(InvalidTypeError, match=message):
        drawn(MIXTURE.at(VP), Parallel(sampler))


class Changing(Sampler):
    """Evaluates the score once more where the state is positive."""

    def step(self, rsde, x, t, s, noise):
        value = rsde.score(x, t)
        return rsde.score(x, s) + x if float(value.sum()) > 0 else x + value


@pytest.mark.parametrize("sign", [1.0, -1.0])
def test_a_sampler_whose_evaluations_depend_on_values_is_refused(sign):
    """The first model of the score has the other sign."""
    x = torch.full((1, 2), sign, dtype=torch.float64)
    with pytest.raises(InvalidTypeError, match="number or the times"):
        scoresde.sample(lambda x, t: x, VP, Parallel(Changing(), 1e-6), x=x, steps=2, seed=0)


def test_a_score_that_is_not_finite_is_an_error_as_in_the_sampler():
    def score(x, t):
        return torch.where(t[:, None] < 0.5, torch.nan, -x)

    with pytest.raises(NonFiniteError):
        scoresde.sample(score, VP, Parallel(DDIM()), shape=(2,), n=2, steps=6, seed=0)
    with pytest.raises(NonFiniteError):
        scoresde.sample(
            lambda x, t: 1e200 * x.double(), VP, Parallel(DDIM()), shape=(2,), steps=6, seed=0
        )
