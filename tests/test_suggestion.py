"""Test suggested noise levels and samplers: their equations, and their results."""

import math
import re

import numpy as np
import oracle
import pytest
import scipy.stats
import torch
from hypothesis import given
from hypothesis import strategies as st
from strategies import generators

import scoresde
from scoresde import suggestion
from scoresde.cli import main
from scoresde.data import BYTES, Data
from scoresde.errors import DataError, InvalidTypeError, ScoreSDEError, ShapeError
from scoresde.samplers import PC, AnnealedLangevin, Langevin
from scoresde.sde import VESDE
from scoresde.suggestion import noise
from scoresde.targets import Gaussian, GaussianMixture


def seeded(seed):
    return torch.Generator().manual_seed(seed)


def normal(n, *event, seed=0):
    return torch.randn(n, *event, generator=seeded(seed), dtype=torch.float64)


@given(st.integers(1, 200_000))
def test_the_ratio_of_levels_solves_the_papers_equation(size):
    ratio, _ = noise._ratio(size)
    middle = math.sqrt(2 * size) * (ratio - 1)
    overlap = scipy.stats.norm.cdf(middle + 3 * ratio) - scipy.stats.norm.cdf(middle - 3 * ratio)
    assert overlap > 0.5 - 1e-9
    assert overlap == pytest.approx(0.5, abs=1e-9) or (size < 65 and ratio == 1.36)
    assert 1 < ratio <= 1.36


def test_for_cifar_the_ladder_is_that_of_the_paper():
    # 232 levels from 50 to .01, 5 steps of 6.2e-6 / .01^2 each (its table 2)
    ratio, _ = noise._ratio(3072)
    assert 1 + math.log(5000) / math.log(ratio) == pytest.approx(232, rel=0.06)
    kappa, k, left = noise._annealing(5000 ** (1 / 231))
    assert k == 5
    assert kappa == pytest.approx(0.062, rel=0.01)
    assert left <= 1.056


def test_a_ladder_needs_28_levels_in_64_dimensions_and_105_in_784():
    levels = {d: 1 + math.log(3800) / math.log(noise._ratio(d)[0]) for d in (64, 784)}
    assert levels == pytest.approx({64: 28, 784: 105}, abs=1)


@given(st.integers(1, 100), st.integers(5, 20), st.integers(0, 2**32))
def test_a_ladder_has_the_fewest_levels_whose_ratio_is_small_enough(size, n, seed):
    found = scoresde.suggest(normal(n, size, seed=seed))
    most, _ = noise._ratio(size)
    span = math.log(found.sigma_max / found.sigma_min)
    assert found.ratio == pytest.approx(math.exp(span / (found.levels - 1)))
    assert found.ratio <= most * (1 + 1e-12)
    assert found.levels == 2 or math.exp(span / (found.levels - 2)) > most
    ladder = found.ladder()
    sigma = ladder.sigma(ladder.times())
    expected = torch.full_like(sigma[1:], found.ratio)  # its ends have three digits
    assert torch.allclose(sigma[:-1] / sigma[1:], expected, rtol=0.01)


@pytest.mark.parametrize("ratio", [1.04, 1.2, 1.36])
def test_annealed_steps_leave_the_predicted_variance(ratio):
    kappa, k, left = noise._annealing(ratio)
    sde = VESDE(0.1, 1.0)
    score = oracle.gaussian(sde, 0.0, 0.0)
    s = torch.tensor(sde.eps, dtype=torch.float64)
    found = oracle.step(AnnealedLangevin(kappa, k), sde.reverse(score), s, s)
    zero = torch.zeros(1, dtype=torch.float64)
    _, variance = found(zero, zero + (0.1 * ratio) ** 2)
    assert float(variance) / 0.1**2 == pytest.approx(left, rel=1e-9)
    assert left <= 1.056
    fewer = noise._annealing(ratio)[1] - 1
    kappas = torch.linspace(1e-3, 0.999, 4000, dtype=torch.float64)
    settled = 2 / (2 - kappas)
    if fewer:
        assert ((1 - kappas) ** (2 * fewer) * (ratio**2 - settled) + settled).min() > 1.056


@pytest.mark.slow
@pytest.mark.parametrize("size", [2, 64])
def test_predictor_corrector_is_right_to_a_percent_and_better_than_the_default(size):
    found = suggestion.suggest(normal(500, size))
    sde = found.sde()
    widths = torch.logspace(
        math.log10(4 * found.sigma_min), math.log10(found.sigma_max / 4), 25, dtype=torch.float64
    )
    score = oracle.gaussian(sde, 0.0, widths**2)

    def worst(sampler):
        times = sampler.times(sde, found.steps)
        _, variance = oracle.run(sampler, score, times)
        return float((variance / oracle.law(score, times[-1])[1] - 1).abs().max())

    own = worst(found.sampler())
    assert own < 0.01
    # at twice and half of the suggested ratio the errors no longer cancel
    assert own < 0.5 * worst(PC(corrector=Langevin(2 * found.snr)))
    assert own < 0.5 * worst(PC(corrector=Langevin(found.snr / 2)))
    assert own < 1.6 * worst(PC())


@pytest.mark.slow
def test_the_ladder_finds_the_shares_of_distant_modes_and_a_short_one_does_not():
    target = GaussianMixture([0.15, 0.85], [[-6.0, 0.0], [6.0, 0.0]], stds=0.5)
    found = suggestion.suggest(target.sample(1000, generator=seeded(1)))

    def share(ladder):
        x = scoresde.sample(
            lambda x, t: target.at(ladder)(x, t), ladder, found.annealed(), n=400, shape=(2,),
            seed=0,
        )  # fmt: skip
        return float((x[:, 0] < 0).double().mean())

    ladder = found.ladder()
    assert ladder.levels == found.levels
    # the walk lags a little behind its levels, and cannot make up for levels that are missing
    assert abs(share(ladder) - 0.15) < 0.06
    assert abs(share(VESDE(found.sigma_min, 1.0, levels=found.levels)) - 0.15) > 0.2


def test_the_largest_noise_is_the_largest_distance():
    x = normal(12, 3, 2)
    found = suggestion.suggest(x)
    pairs = [(x[i] - x[j]).norm() for i in range(12) for j in range(i)]
    assert found.sigma_max == pytest.approx(float(max(pairs)))
    assert "largest distance" in found.reasons["sigma_max"]


def test_one_outlier_changes_nothing_much():
    x = normal(1500, 2)
    plain = suggestion.suggest(x)
    x[7] = 1e6
    with pytest.warns(UserWarning, match="a few outliers make sigma_data"):
        found = suggestion.suggest(x)
    for name in ("sigma_min", "sigma_max"):
        assert getattr(found, name) == pytest.approx(getattr(plain, name), rel=0.2)
    assert "1.41e+06" in found.reasons["sigma_max"]


@given(st.floats(0.01, 100), st.floats(-3, 3), generators())
def test_suggestions_scale_with_the_data(scale, shift, generator):
    x = torch.randn(40, 3, generator=generator, dtype=torch.float64)
    plain, found = suggestion.suggest(x), suggestion.suggest(scale * (x + shift))
    for name in ("sigma_min", "sigma_max", "sigma_data"):
        assert getattr(found, name) == pytest.approx(scale * getattr(plain, name), rel=1e-6)
    for name in ("levels", "k", "steps"):
        assert getattr(found, name) == getattr(plain, name)
    assert found.snr == pytest.approx(plain.snr)


def test_suggestions_do_not_depend_on_the_coordinates():
    x = normal(200, 5) * torch.tensor([1.0, 0.5, 2.0, 0.1, 1.0], dtype=torch.float64)
    turn, _ = torch.linalg.qr(normal(5, 5, seed=3))
    one, two = suggestion.suggest(x), suggestion.suggest(x @ turn)
    assert two.sigma_min == pytest.approx(one.sigma_min, rel=1e-9)
    assert two.sigma_max == pytest.approx(one.sigma_max, rel=1e-9)


def test_the_smallest_noise_is_half_the_distance_of_two_bytes():
    # an image that varies slowly is continuous but for the rounding to bytes
    raw = torch.randint(0, 256, (300, 1, 6, 6), generator=seeded(4), dtype=torch.uint8)
    flat = (raw.float().mean((2, 3), keepdim=True) + raw.float() / 64).round().to(torch.uint8)
    found = suggestion.suggest(Data(flat, transform=BYTES))
    assert "between neighbouring values" in found.reasons["sigma_min"]
    assert found.sigma_min == pytest.approx(1 / 255, rel=1e-2)
    x = torch.linspace(0, 1, 101, dtype=torch.float64)[:, None]
    comb = torch.exp(-0.5 * ((x - torch.arange(-20.0, 21)) / 0.5) ** 2).sum(1)
    assert float(comb.max() / comb.min()) < 1.03


def test_the_thinnest_direction_bounds_the_smallest_noise():
    x = normal(1000, 8) * torch.tensor([1.0] * 7 + [0.01], dtype=torch.float64)
    found = suggestion.suggest(x)
    assert found.sigma_min == pytest.approx(0.001, rel=0.1)
    assert "narrowest" in found.reasons["sigma_min"]
    # a direction without any spread is ignored
    flat = suggestion.suggest(torch.cat([normal(1000, 7), torch.zeros(1000, 1)], 1))
    assert flat.sigma_min > 0.02


@pytest.mark.parametrize("n", [30, 60])
def test_too_few_samples_for_the_smallest_noise_are_reported(n):
    reason = suggestion.suggest(normal(n, 20)).reasons["sigma_min"]
    assert (f"; {n} samples are too few for a reliable value in 20 dim" in reason) == (n < 40)


def test_the_thinnest_direction_is_found_on_average_with_few_samples_too():
    """The least variance of n samples is low by a share of about d / n."""
    found = []
    for seed in range(40):
        x = normal(60, 40, seed=seed)
        x[:, 0] *= 0.01
        reason = suggestion.suggest(x).reasons["sigma_min"]
        found.append(float(re.search(r"the std (\S+) of", reason)[1]))
    assert sum(found) / len(found) == pytest.approx(0.01, rel=0.1)


def test_neighbours_in_the_plane_bound_the_smallest_noise():
    x = normal(400, 2)
    found = suggestion.suggest(x)
    distances = (x[:, None] - x).norm(dim=2).fill_diagonal_(math.inf)
    expected = float(distances.amin(1).median()) / (2 * math.sqrt(2))
    assert found.sigma_min == pytest.approx(expected)
    assert "neighbours" in found.reasons["sigma_min"]


def test_copies_of_a_sample_are_not_counted_as_neighbours():
    x = normal(60, 2)
    assert suggestion.suggest(x.repeat(3, 1)).sigma_min == pytest.approx(
        suggestion.suggest(x).sigma_min, rel=0.05
    )


def test_nearly_equal_samples_still_have_a_scale():
    x = torch.zeros(500, 2)
    x[0] = 1.0
    found = suggestion.suggest(x)
    assert found.sigma_max == pytest.approx(math.sqrt(2))
    assert 0 < found.sigma_min < found.sigma_max


@pytest.mark.slow
def test_the_seed_chooses_which_of_many_samples_are_compared():
    x = normal(5000, 2)
    one, two = suggestion.suggest(x), suggestion.suggest(x, seed=1)
    assert "2000 samples" in one.reasons["sigma_max"]
    assert one == suggestion.suggest(x)
    assert one.sigma_min != two.sigma_min
    assert one.sigma_max == pytest.approx(two.sigma_max, rel=0.05)


@pytest.mark.slow
@pytest.mark.parametrize("event", [(1,), (3,), (2, 3, 4), (1, 2, 2, 2)])
@pytest.mark.parametrize("n", [2, 3, 30])
def test_any_shape_and_number_of_samples_gives_usable_figures(event, n):
    found = suggestion.suggest(normal(n, *event))
    assert 0 < found.sigma_min < found.sigma_max < math.inf
    assert found.levels >= 2
    assert found.sde().sigma_max == pytest.approx(found.sigma_max, rel=5e-3)
    x = scoresde.sample(
        Gaussian(torch.zeros(event), var=1.0).at(found.sde()), found.sde(), found.sampler(), n=2,
        steps=found.steps, seed=0,
    )  # fmt: skip
    assert x.shape == (2, *event)


@pytest.mark.parametrize(
    ("data", "error"),
    [
        (torch.zeros(1, 3), DataError),
        (torch.ones(9, 3), DataError),
        (torch.zeros(4), ShapeError),
        (torch.zeros(0, 2), DataError),
        (torch.full((3, 2), math.nan), DataError),
        (1e160 * normal(9, 2), DataError),
        (7, InvalidTypeError),
    ],
)
def test_data_without_a_scale_are_refused(data, error):
    with pytest.raises(error):
        suggestion.suggest(data)


@pytest.mark.parametrize("scale", [1e153, 1e-162, 1e-200])
def test_samples_that_differ_too_little_or_too_much_are_not_called_equal(scale):
    with pytest.raises(DataError, match="whose square float64 cannot hold"):
        suggestion.suggest(scale * normal(9, 2))


def test_a_seed_may_be_an_integer_of_numpy():
    x = normal(3000, 2)
    assert suggestion.suggest(x, seed=np.int64(3)) == suggestion.suggest(x, seed=3)


@pytest.mark.parametrize("seed", [-1, 0.5, "a"])
def test_an_invalid_seed_is_refused(seed):
    with pytest.raises(ScoreSDEError, match="seed must be an integer"):
        suggestion.suggest(normal(9, 2), seed=seed)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_data_far_from_zero_are_to_be_standardised(dtype):
    x = normal(500, 2, seed=3).to(dtype)
    with pytest.warns(UserWarning, match="float32 loses their differences; standardize"):
        found = suggestion.suggest(x + 1e6)
    assert "float32" in found.reasons["sigma_min"]
    suggestion.suggest(x + 100)


def test_the_table_names_every_figure_with_its_reason():
    found = scoresde.suggest(normal(50, 2))
    lines = found.table(samplers=True).splitlines()
    (head,) = (line for line in lines if line.endswith(":"))
    lines.remove(head)
    assert {line.split()[0] for line in lines} == {*found.reasons} - {"updates"}
    assert all(len(line) > 40 for line in lines)
    assert "reasons" not in repr(found)


def test_the_text_of_a_suggestion_leaves_out_the_numbers_of_the_samplers():
    words = {line.split()[0] for line in str(scoresde.suggest(normal(50, 2))).splitlines()}
    assert {"sigma_min", "sigma_max", "net", "steps", "batch_size"} <= words
    assert not words & {"kappa", "snr", "ratio", "levels"}


@pytest.mark.parametrize(("classes", "share"), [(2, 0.25), (3, 0.25), (6, 0.14), (10, 0.1)])
def test_few_classes_are_hidden_about_as_often_as_each_of_them_is_seen(classes, share):
    x, label = normal(60, 2), torch.arange(60) % classes
    assert scoresde.suggest(Data(x, label=label)).config.condition_dropout == share
    assert scoresde.suggest(Data(x, label=label, y=normal(60, 2))).config.condition_dropout == 0.1


def test_the_command_prints_the_table(tmp_path, capsys):
    np.save(tmp_path / "x.npy", normal(40, 2).numpy())
    assert main(["suggest", str(tmp_path / "x.npy")]) == 0
    assert "sigma_max" in capsys.readouterr().out
    assert main(["suggest", str(tmp_path / "y.npy")]) == 1
    assert "does not exist" in capsys.readouterr().err
