"""Test imputation: known numbers are kept, and the others are drawn given them."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from oracle import Probe
from strategies import sdes

import scoresde
from scoresde import Condition, Noise
from scoresde.errors import (
    InvalidTypeError,
    InvalidValueError,
    NonFiniteError,
    ShapeError,
)
from scoresde.samplers import DDIM, PC, Heun, Impute, ProbabilityFlow, UniPC
from scoresde.targets import Gaussian

VP = scoresde.VPSDE()
PAIR = Gaussian([0.0, 0.0], cov=[[1.0, 0.9], [0.9, 1.0]])
GIVEN = {"known": torch.tensor([1.5, 0.0]), "mask": torch.tensor([1, 0])}
ROTATION = torch.linalg.qr(
    torch.randn(3, 3, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
)[0]


def draw(method, n=9, steps=5, score=None, condition=None, **options):
    options |= dict(n=n, steps=steps, seed=0, condition=condition or GIVEN)
    return scoresde.sample(score or PAIR.at(VP), None, method, **options)


@pytest.mark.filterwarnings("ignore:the data have a standard deviation")
@pytest.mark.slow
@pytest.mark.law(73)
@settings(max_examples=10)
@given(sdes(continuous=True), st.integers(1, 3), st.integers(0, 2**32))
def test_known_entries_have_their_noisy_law_at_every_time_and_are_exact_at_the_end(sde, k, seed):
    n, known = 400, torch.tensor([1.5, -0.5])
    condition = {"known": known, "mask": torch.tensor([True, False])}
    run = scoresde.Run.of(
        PAIR.at(sde), sampler=Impute(DDIM(1.0), k), n=n, steps=4, seed=seed, condition=condition,
        dtype=torch.float64,
    )  # fmt: skip
    *path, end = run.states()
    assert torch.equal(end.denoised[:, 0], torch.full((n,), 1.5, dtype=torch.float64))
    assert len(end.denoised[:, 1].unique()) == n
    for state in path[1:]:
        z = (state.x[:, 0] - sde.alpha(state.t) * 1.5) / sde.sigma(state.t)
        assert abs(float(z.mean())) < 6 / n**0.5
        assert abs(float(z.var()) - 1) < 6 * (2 / n) ** 0.5


@pytest.mark.slow
@pytest.mark.law(73)
def test_resampling_brings_the_unknown_entries_nearer_to_their_law():
    """E[x_2 | x_1 = 1.5] = 1.35; the mean is linear, so that probes give it exactly."""
    gaps = []
    for k in (1, 2, 5, 10):
        method = Impute(DDIM(1.0), k)
        times = VP.times(40)
        rsde = VP.reverse(PAIR.at(VP), condition=rows(GIVEN, 2), withheld=method.conditions)
        noise = Silent()
        *_, end = method.trajectory(rsde, torch.zeros(2, 2).double(), times, noise)
        gaps.append(1.35 - float(method.finish(rsde, end.x, times[-1], noise)[0, 1]))
    assert gaps == sorted(gaps, reverse=True)
    assert gaps[0] > 0.3
    assert 0 < gaps[3] < 0.1


class Silent(Probe):
    """No noise at all: what comes out is the mean."""

    def _unit(self, like, name):
        return torch.zeros_like(like)

    def fork(self, k):
        return self


def rows(given, n):
    return Condition.of({k: v.double()[None] for k, v in given.items()}, n)


@settings(max_examples=10)
@given(st.integers(0, 2**32), st.integers(1, 3))
def test_a_mask_in_a_basis_is_the_mask_of_turned_data(seed, k):
    """Turned data under the turned score, with turned noise, are the turned samples."""
    generator = torch.Generator().manual_seed(seed)
    root = torch.randn(3, 3, generator=generator, dtype=torch.float64)
    cov = root @ root.T + 0.1 * torch.eye(3)
    turned = ROTATION @ cov @ ROTATION.T
    plain, other = Gaussian(torch.zeros(3), cov=cov), Gaussian(torch.zeros(3), cov=turned)
    given = {"known": torch.tensor([0.7, 0.0, 0.0]), "mask": torch.tensor([1, 0, 0])}
    times = VP.times(3)
    method = Impute(DDIM(), k)
    ends = []
    for score, basis in ((plain.at(VP), ROTATION), (other.at(VP), None)):
        sampler = Impute(method.sampler, k, basis)
        rsde = VP.reverse(score, condition=rows(given, 2), withheld=sampler.conditions)
        x = torch.ones(2, 3, dtype=torch.float64)
        x = x if basis is not None else x @ ROTATION.T
        noise = Turned(Noise.of(seed, 2), basis)
        *_, end = sampler.trajectory(rsde, x, times, noise)
        ends.append(end.x if basis is None else end.x @ ROTATION.T)
    torch.testing.assert_close(ends[0], ends[1], rtol=1e-6, atol=1e-6)


class Turned:
    """Noise whose fresh numbers of going up are turned back into the coordinates of the data."""

    def __init__(self, noise, basis, path=()):
        self.noise, self.basis, self.path = noise, basis, path

    def normal(self, like, t, k=0):
        z = self.noise.normal(like, t, k)
        up = self.path[-1:] == (2,)
        return z @ self.basis if up and self.basis is not None else z

    def fork(self, k):
        return Turned(self.noise.fork(k), self.basis, (*self.path, k))


def test_colours_of_a_grey_image_are_a_mask_in_a_basis():
    basis = torch.linalg.qr(torch.tensor([[1.0, 1, 0], [1, 0, 1], [1, 0, 0]]))[0].T
    target = Gaussian(torch.zeros(3, 2, 2), std=0.5)
    grey = torch.full((1, 2, 2), 0.3)
    condition = {
        "known": torch.cat([grey, torch.zeros(2, 2, 2)]),
        "mask": torch.tensor([1, 0, 0])[:, None, None].expand(3, 2, 2),
    }
    x = draw(Impute(DDIM(1.0), basis=basis), score=target.at(VP), condition=condition)
    first = torch.einsum("c,bchw->bhw", basis[0], x)
    torch.testing.assert_close(first, grey.expand(9, 2, 2), rtol=1e-5, atol=1e-5)
    assert x.std() > 0.2
    assert Impute(basis=basis) == Impute(basis=basis.tolist())


def test_a_multistep_method_inside_is_of_first_order():
    first = draw(Impute(DDIM(), 2))
    times = UniPC().times(VP, 5)
    one = draw(Impute(UniPC(), 2), times=times, steps=None)
    two = draw(Impute(UniPC(order=1), 2), times=times, steps=None)
    assert torch.equal(one, two)
    assert first.isfinite().all()


def test_a_sample_is_independent_of_its_batch_and_has_the_stated_cost():
    run = scoresde.Run.of(
        PAIR.at(VP), sampler=Impute(Heun(), 3), n=7, steps=5, seed=0, condition=GIVEN
    )
    whole = run.draw()
    assert whole.nfe == Impute(Heun(), 3).cost(5) + 1 == 31
    assert torch.equal(whole.x, run.draw(batch_size=3).x)
    with_none = draw(Impute(Heun()), condition={"known": torch.zeros(2), "mask": torch.zeros(2)})
    assert with_none.isfinite().all()


def test_a_score_never_receives_the_conditions_of_the_sampler():
    seen = []

    def bare(x, t, condition=None):
        seen.append(None if condition is None else sorted(condition))
        return -x

    options = dict(shape=(2,), n=2, steps=1, seed=0)
    for more in ({}, {"z": torch.ones(2, 3)}):
        scoresde.sample(bare, VP, Impute(), condition=GIVEN | more, **options)
    assert seen == [None, None, ["z"], ["z"]]


# Errors


@pytest.mark.parametrize(
    ("error", "change", "match"),
    [
        (InvalidValueError, dict(mask=torch.tensor([0.5, 0.0])), r"posterior\(score, Linear\(Mask"),
        (ShapeError, dict(mask=torch.ones(3)), "mask"),
        (ShapeError, dict(known=torch.ones(3)), "known"),
        (ShapeError, dict(known=torch.ones(4, 2)), "known"),
        (InvalidTypeError, dict(known=torch.ones(2, dtype=torch.int64)), "floating"),
        (NonFiniteError, dict(known=torch.tensor([torch.nan, 0.0])), "NaN where the mask is 1"),
        (InvalidValueError, dict(label=3), "takes no condition"),
    ],
)
def test_known_entries_are_checked_before_any_evaluation(error, change, match):
    class Unasked:
        facts = scoresde.Facts(sde=VP, event_shape=(2,), conditions={})

        def __call__(self, x, t):
            raise AssertionError("the score was evaluated")

    with pytest.raises(error, match=match):
        draw(Impute(), score=Unasked(), condition=GIVEN | change)
    for missing in ({"mask": GIVEN["mask"]}, {}):
        with pytest.raises(InvalidValueError, match="is missing"):
            scoresde.sample(Unasked(), None, Impute(), condition=missing, seed=0)


def test_unknown_entries_may_have_any_value():
    nothing = {"known": torch.tensor([1.5, torch.nan]), "mask": torch.tensor([1, 0])}
    assert torch.equal(draw(Impute(), condition=nothing), draw(Impute()))


@pytest.mark.global_rng  # one call has no seed
@pytest.mark.parametrize(
    ("error", "make", "match"),
    [
        (InvalidValueError, lambda: Impute(resample=0), "resample"),
        (InvalidTypeError, lambda: Impute(ProbabilityFlow()), "chooses its steps itself"),
        (InvalidValueError, lambda: Impute(basis=[[1.0, 0.0], [1.0, 1.0]]), "orthonormal"),
        (InvalidValueError, lambda: Impute(basis=[[torch.nan]]), "orthonormal"),
        (ShapeError, lambda: Impute(basis=[[1.0, 0.0]]), "square"),
        (ShapeError, lambda: draw(Impute(basis=torch.eye(3))), "3 rows"),
        (
            InvalidValueError,
            lambda: scoresde.sample(PAIR.at(VP), None, PC(Impute())),
            "inside another sampler",
        ),
        (InvalidTypeError, lambda: Impute("ddim"), "Sampler"),
    ],
)
def test_an_impossible_imputation_is_refused(error, make, match):
    with pytest.raises(error, match=match):
        make()
