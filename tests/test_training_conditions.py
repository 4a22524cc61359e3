"""Test training with conditions: they stay with samples, are dropped, and standardised."""

import math
from functools import partial

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from strategies import sdes
from torch import nn

from scoresde.data import Data
from scoresde.errors import InvalidValueError, TrainingError, UnknownNameError
from scoresde.nn import MLP, UNet
from scoresde.noise import Noise
from scoresde.objectives import LOSSES, dsm_floor, dsm_loss, edm
from scoresde.score import ScoreModel
from scoresde.sde import VESDE, VPSDE, Facts, Field, Moments
from scoresde.training import TrainConfig, Trainer
from scoresde.units import Range

CONFIG = TrainConfig().changed(steps=6, batch_size=8, warmup=3, save_every=4, log_every=2)


def data():
    g = torch.Generator().manual_seed(0)
    x, y = torch.randn(37, 1, 4, 4, generator=g), torch.randn(37, 3, generator=g)
    y[::5, 1], y[3] = math.nan, math.nan
    forcing = torch.randn(37, 2, 2, 2, generator=g)
    return Data(x, label=torch.arange(37) % 3 - 1, y=y, forcing=forcing)


def built(make, *args, **options):
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(0)
        return make(*args, **options)


def model(**options):
    known = dict(num_classes=2, condition={"y": (3,), "forcing": (2, 2, 2)})
    net = built(UNet, 1, channels=(4,), features=8, dropout=0.2, **(known | options))
    units = {} if options else data().condition_moments()
    return ScoreModel(net, VESDE(), (1, 4, 4), condition_moments=units)


def vectors(n, sizes, seed=0):
    g = torch.Generator().manual_seed(seed)
    return [torch.randn(n, size, generator=g, dtype=torch.float64) for size in sizes]


# Conditions travel


class Listening(nn.Module):
    """Define a network that takes any conditions and keeps them."""

    def __init__(self):
        super().__init__()
        self.scale = nn.Parameter(torch.zeros(()))
        self.seen = []

    def forward(self, x, c, **condition):
        self.seen.append(condition)
        return self.scale * x


def test_every_sample_has_its_own_conditions():
    x = torch.arange(37.0)[:, None, None]
    own = Data(x.expand(37, 2, 2), label=torch.arange(37), y=x[:, 0], forcing=x[..., None])
    pairs = []

    def spy(score, sde, x, *, noise, condition):
        pairs.extend(zip(x[:, 0, 0], *condition.values(), strict=True))
        return dsm_loss(score, sde, x, noise=noise, condition=condition)

    config = CONFIG.changed(steps=14, condition_dropout=0.0, held_out=0.2)
    score = ScoreModel(Listening(), VESDE(), (2, 2), moments=Moments(18.0, var=100.0))
    Trainer(score, own, config, loss=spy).train()
    assert len(pairs) > 37
    assert all(len({float(value) for value in row}) == 1 for row in pairs)


@pytest.mark.slow
def test_a_run_with_conditions_that_was_interrupted_ends_in_the_same_weights(tmp_path):
    config = CONFIG.changed(held_out=0.2, accumulate=2)
    whole = Trainer(model(), data(), config)
    whole.train()
    Trainer(model(), data(), config, folder=tmp_path).train(3)
    resumed = Trainer(model(), data(), config, folder=tmp_path)
    assert resumed.step == 3
    resumed.train()
    one, other = whole._packed(), resumed._packed()
    assert one.keys() == other.keys()
    assert [k for k in one if not torch.equal(one[k], other[k])] == []
    assert whole.held_out.best == resumed.held_out.best
    copy = ScoreModel.from_pretrained(tmp_path)
    x, condition = data().x[:5], data().condition(slice(5))
    assert torch.equal(copy(x, 0.5, condition), resumed.ema.model(x, 0.5, condition))


def test_another_condition_is_another_data_set(tmp_path):
    Trainer(model(), data(), CONFIG, folder=tmp_path).train(1)
    known = data().conditions
    changed = Data(data().x, **{**known, "y": known["y"] + 1})
    with pytest.raises(InvalidValueError, match="another data set"):
        Trainer(model(), changed, CONFIG, folder=tmp_path)


# Some are hidden


@pytest.mark.slow
@pytest.mark.parametrize(
    "shares", [0.25, {"label": 0.5, "y": 0.1, "forcing": 1.0}, {"y": 0.2}], ids=str
)
def test_each_condition_is_hidden_at_the_given_rate_and_independently(shares):
    n, steps = 64, 60
    known = Data(
        torch.zeros(n, 2, 2) + torch.arange(n)[:, None, None],
        label=torch.zeros(n).long(), y=torch.ones(n, 3), forcing=torch.ones(n, 1, 2),
    )  # fmt: skip
    score = ScoreModel(Listening(), VESDE(), (2, 2), moments=Moments(32.0, var=400.0))
    config = CONFIG.changed(steps=steps, batch_size=n, condition_dropout=shares)
    Trainer(score, known, config).train()
    hidden = {}
    for name in ("label", "y", "forcing"):
        seen = torch.cat([rows[name] for rows in score.net.seen]).double()
        seen = seen.reshape(n * steps, -1)
        missing = seen.isnan() | (seen == -1)
        assert torch.equal(missing.all(1), missing.any(1)), "a condition is hidden as a whole"
        hidden[name] = missing.all(1).double()
        p = shares.get(name, 0.0) if isinstance(shares, dict) else shares
        assert abs(hidden[name].mean() - p) <= 5 * (p * (1 - p) / (n * steps)) ** 0.5
    for one, other in [("label", "y"), ("y", "forcing"), ("label", "forcing")]:
        a, b = hidden[one], hidden[other]
        both, p, q = (a * b).mean(), float(a.mean()), float(b.mean())
        assert abs(both - p * q) <= 5 * (p * (1 - p) * q * (1 - q) / (n * steps)) ** 0.5


# Units of conditions


@pytest.mark.slow
@given(scale=st.sampled_from([1e-3, 7.0, 1000.0]), shift=st.sampled_from([-3.0, 0.0, 5.0]))
@settings(max_examples=4)
def test_the_units_of_a_condition_change_nothing_but_rounding(scale, shift):
    weights = []
    for own in (data(), data()):
        known = dict(own.conditions)
        if weights:
            known |= {name: scale * known[name].double() + shift for name in ("y", "forcing")}
            own = Data(own.x, **known)
        net = built(UNet, 1, channels=(4,), num_classes=2, features=8,
                    condition={"y": (3,), "forcing": (2, 2, 2)})  # fmt: skip
        units = own.condition_moments()
        score = ScoreModel(net, VESDE(), (1, 4, 4), condition_moments=units)
        trained = Trainer(score, own, CONFIG).train()
        weights.append(dict(trained.named_parameters()))
    for name, value in weights[0].items():
        torch.testing.assert_close(weights[1][name], value, rtol=0, atol=1e-4)


def test_a_model_that_would_receive_a_condition_in_other_units_warns():
    x, y = vectors(20, [2, 3])
    known = Data(x.float(), y=100 * y + 1000)
    net = built(MLP, 2, hidden=(4,), condition={"y": 3})
    with pytest.warns(UserWarning, match=r"'y' with .* up to 1\.\d+e\+03 .*condition_moments=data"):
        Trainer(ScoreModel(net, VESDE(), (2,)), known, CONFIG)


# The conditional score is learnt


class Exact(nn.Module):
    """Define the score of x given y ~ N(A y, S), under an SDE, A y = 0 where y is missing."""

    def __init__(self, sde, a, var):
        super().__init__()
        self.sde, self.a, self.var = sde, a, var
        self.facts = Facts(sde=sde, event_shape=(len(a),), conditions={"y": Field((a.shape[1],))})

    def forward(self, x, t, condition):
        alpha, sigma = self.sde.at(t, x)
        mean = condition["y"].nan_to_num().to(x) @ self.a.T.to(x)
        return (alpha * mean - x) / (alpha**2 * self.var.to(x) + sigma**2)


@given(sde=sdes(continuous=True), t=st.floats(0.2, 0.9), name=st.sampled_from(sorted(LOSSES)))
@settings(max_examples=12)
def test_the_loss_of_a_law_that_a_condition_moves_is_that_of_the_law_at_rest(sde, t, name):
    """Every loss is the same for (x, y) under p(x | y) = N(A y, S) as for x - A y under N(0, S)."""
    n = 16
    (a,), var = vectors(2, [3], seed=1), torch.tensor([0.3, 0.1], dtype=torch.float64)
    y, z = vectors(n, [3, 2])
    y[:3] = math.nan
    rest = var.sqrt() * z
    moved = rest + y.nan_to_num() @ a.T
    score, time = Exact(sde, a, var), sde.eps + t * (sde.T - sde.eps)
    still = {"y": torch.full_like(y, math.nan)}
    loss, noise = LOSSES[name], Noise.of(0, n)
    found = loss(score, sde, moved, t=time, noise=noise, condition={"y": y})
    expected = loss(score, sde, rest, t=time, noise=noise, condition=still)
    size = float(expected.detach().abs().max())
    torch.testing.assert_close(found, expected, rtol=1e-5, atol=1e-6 * size)


@pytest.mark.slow
def test_a_trained_network_approaches_the_exact_conditional_score():
    """Its excess loss over that of the exact score is E |s - s*|^2, in DSM's weight."""
    sde, n = VPSDE(), 4096
    (a,), var = vectors(2, [3], seed=1), torch.tensor([0.3, 0.1], dtype=torch.float64)
    y, z = vectors(n, [3, 2])
    x = (y @ a.T + var.sqrt() * z).float()
    known = Data(x, y=y)
    net = built(MLP, 2, hidden=(32, 32), condition={"y": 3})
    own = ScoreModel(
        net, sde, (2,), moments=Moments(*known.moments()),
        condition_moments=known.condition_moments(),
    )  # fmt: skip
    weight = edm(own.moments.mean_variance())
    config = TrainConfig(steps=400, batch_size=256, condition_dropout=0.0).changed(
        lr=5e-3, ema=0.98, held_out=0.0
    )
    trained = Trainer(own, known, config, loss=partial(dsm_loss, weight=weight)).train()
    fresh, noise = vectors(n, [3, 2], seed=7), vectors(n, [2], seed=8)[0]
    exact, marginal = Exact(sde, a, var), a @ a.T + var.diag()
    excess, least = [], []
    for t in torch.linspace(0.05, 0.95, 10, dtype=torch.float64):
        alpha, sigma = sde.alpha(t), sde.sigma(t)
        state = alpha * (fresh[0] @ a.T + var.sqrt() * fresh[1]) + sigma * noise
        with torch.no_grad():
            own_score = trained(state, t, {"y": fresh[0]})
            best = exact(state, t, {"y": fresh[0]})
            blind = -state @ torch.linalg.inv(alpha**2 * marginal + sigma**2 * torch.eye(2))
        lam = weight(sde, t)
        excess.append(lam * (own_score - best).square().sum(1).mean())
        least.append(lam * (blind - best).square().sum(1).mean())
    floor = torch.stack([
        dsm_floor(sde, t, Moments(torch.zeros(2), var=var), weight=weight)
        for t in torch.linspace(0.05, 0.95, 10, dtype=torch.float64)
    ])  # fmt: skip
    # a fiftieth of the loss that nothing avoids, and of what a score that ignores y pays
    assert sum(excess) < 0.02 * floor.sum()
    assert sum(excess) < 0.02 * sum(least)


# What does not fit


def test_conditions_that_the_score_does_not_take_are_refused():
    wide = data()
    for options, message in [
        (dict(num_classes=1), r"'label' of the data is Classes\(n=2\), but the score takes .*=1\)"),
        (dict(condition={"y": (3,)}), r"'forcing', .* condition={'forcing': \(2, 2, 2\)}.*without"),
        (dict(condition={"y": (4,), "forcing": (2, 2, 2)}), r"'y' of the data is Field.*\(3,\)"),
        (dict(num_classes={"label": 2, "kind": 5}), r"'kind', .* data lack.* all -1"),
        (dict(condition={"y": (3,), "forcing": (2, 2, 2), "z": 1}), r"'z', .* lack.* all NaN"),
    ]:  # fmt: skip
        with pytest.raises((InvalidValueError, UnknownNameError), match=message):
            Trainer(model(**options), wide, CONFIG)
    with pytest.raises(UnknownNameError, match="unknown condition 'lable'; did you mean 'label'"):
        Trainer(model(), wide, CONFIG.changed(condition_dropout={"lable": 0.1}))
    with pytest.raises(InvalidValueError, match=r"condition_dropout of y must lie in \[0, 1\]"):
        CONFIG.changed(condition_dropout={"y": 2.0})


def test_data_in_other_units_than_the_model_learnt_are_refused():
    trained = model()
    trained.transform = Range(-1.1, 1.1)
    other = Data(data().x, transform=Range(-1.0, 1.0), **data().conditions)
    with pytest.raises(InvalidValueError, match=r"data\.units_of\(model\.transform\)"):
        Trainer(trained, other, CONFIG)
    Trainer(trained, other.units_of(trained.transform), CONFIG)


@pytest.mark.parametrize("name", ["y", "label"])
def test_conditions_in_memory_that_change_during_a_run_end_it(name):
    own = data()
    trainer = Trainer(model(), own, CONFIG)
    trainer.train(2, progress=False)
    own.conditions[name][0] += 1
    with pytest.raises(TrainingError, match=f"conditions '{name}' of the samples 0 to"):
        trainer.train(progress=False)
