"""Test that any score can be trained with any loss, with the noise of the trainer."""

import math
import shutil
import warnings
from functools import partial

import pytest
import torch
from test_training import CONFIG, assert_same, data, make, rows
from torch import nn

from scoresde import VESDE, EnergyScore, Facts, Moments, ScoreModel, checkpoint, dsm_loss
from scoresde.data import BYTES, Data
from scoresde.errors import InvalidTypeError, InvalidValueError, ShapeError
from scoresde.nn import MLP
from scoresde.objectives import LearnedWeight, described, edm, min_snr, sigma2
from scoresde.sde import LogNormal, Stratified
from scoresde.training import TrainConfig, Trainer
from scoresde.training.network import training


def seeded(make, *args, **options):
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(0)
        return make(*args, **options)


class Energy(nn.Module):
    def __init__(self):
        super().__init__()
        self.layers = nn.Sequential(nn.Linear(1, 16), nn.SiLU(), nn.Linear(16, 1))

    def forward(self, x, t, condition=None):
        precision = self.layers(t[:, None])[:, 0].exp()
        return 0.5 * precision * x.square().sum(1)


class Own(nn.Module):
    """Define a user's score: a module whose facts have the process alone."""

    def __init__(self):
        super().__init__()
        self.facts = Facts(sde=VESDE())
        self.layers = nn.ModuleList([nn.Sequential(nn.Linear(3, 8), nn.Tanh()), nn.Linear(8, 2)])

    def forward(self, x, t, condition=None):
        hidden = self.layers[0](torch.cat([x, t[:, None]], 1))
        return self.layers[1](hidden) / t[:, None].clamp(min=0.1)


def energy():
    return EnergyScore(seeded(Energy), VESDE(), (2,))


def own():
    return seeded(Own)


# Any score


@pytest.mark.parametrize("score", [energy, own])
def test_a_score_that_is_no_model_is_trained_and_its_average_returned(tmp_path, score):
    found = Trainer(score(), data(False), CONFIG, folder=tmp_path).train()
    assert type(found) is type(score())
    assert not found.training
    assert any(p.requires_grad for p in found.parameters()) is False
    assert not (tmp_path / "model.safetensors").exists()
    assert checkpoint.latest(tmp_path)[2]["step"] == 13


@pytest.mark.parametrize("score", [energy, own])
def test_a_score_that_is_no_model_is_resumed_bit_for_bit(tmp_path, score):
    Trainer(score(), data(False), CONFIG, folder=tmp_path).train(6)
    again = Trainer(score(), data(False), CONFIG, folder=tmp_path)
    assert again.step == 6
    again.train()
    whole = Trainer(score(), data(False), CONFIG)
    whole.train()
    assert_same(again, whole)


@pytest.mark.slow
def test_an_energy_learns_a_gaussian():
    x = 0.5 * torch.randn(512, 2, generator=torch.Generator().manual_seed(0))
    config = TrainConfig(steps=300, batch_size=128).changed(lr=5e-2, ema=0.9, warmup=10)
    sde = VESDE(sigma_min=0.1, sigma_max=2.0)
    score = EnergyScore(seeded(Energy), sde, (2,), moments=Moments(0.0, var=0.25))
    found = Trainer(score, x, config, loss=partial(dsm_loss, weight=sigma2)).train()
    for sigma in (0.25, 0.5, 1.0):
        t = sde.time(torch.tensor(-2 * math.log(sigma))).float().expand(512)
        exact = -x / (0.25 + sigma**2)
        assert (found(x, t) - exact).detach().norm() < 0.15 * exact.norm()


@pytest.mark.parametrize("options", [{"bf16": True}, {"channels_last": True}, {"recompute": True}])
def test_options_of_how_a_step_is_computed_apply_to_any_module(options):
    trainer = Trainer(own(), data(False), CONFIG.changed(steps=3, **options))
    seen = []
    trainer.score.layers[0][0].register_forward_hook(lambda m, i, out: seen.append(out.dtype))
    trainer.train()
    assert set(seen) == {torch.bfloat16 if "bf16" in options else torch.float32}
    assert len(seen) == (6 if "recompute" in options else 3)
    assert "forward" not in vars(trainer.score)


def test_modes_of_layers_are_restored():
    score = own()
    score.layers[0].eval()
    with training(score, CONFIG.changed(bf16=True, recompute=True)):
        assert score.layers[0].training
    assert [layer.training for layer in score.layers] == [False, True]
    assert "forward" not in vars(score)


# Any loss


def squares(score, sde, x, *, noise, condition=None):
    """Return a loss of a user: the denoiser's error at other times."""
    t = torch.linspace(0.1, 1.0, len(x), dtype=torch.float64)
    alpha, sigma = sde.at(t, x)
    z = noise.normal(x, 0.0, 1)
    error = sigma * score(alpha * x + sigma * z, t.to(x), condition) + z
    return error.square().sum(1)


def test_a_loss_of_the_users_trains():
    trainer = Trainer(make(), data(), CONFIG, loss=squares)
    before = trainer.score.net.head.weight.detach().clone()
    trainer.train()
    assert not torch.equal(before, trainer.score.net.head.weight)


def test_the_default_is_dsm_with_the_weight_of_the_variance_that_the_score_assumes():
    model = make(moments=Moments(0.0, var=2.0))
    assert described(Trainer(model, data(), CONFIG).loss) == "dsm_loss(weight=edm(2))"
    unknown = Trainer(own(), Data(data().x * 3), CONFIG)
    assert unknown.loss.keywords["weight"].var == pytest.approx(data().moments()[1] * 9, rel=1e-6)


def test_the_noise_of_a_row_depends_on_seed_step_and_row_alone():
    def seen(**options):
        found = []

        def spy(score, sde, x, *, noise, condition):
            found.append((noise.normal(x, 0.0), condition["label"]))
            return dsm_loss(score, sde, x, noise=noise, condition=condition)

        config = CONFIG.changed(steps=3, condition_dropout=0.5, **options)
        Trainer(make(), data(), config, loss=spy).train()
        return [torch.cat(part) for part in zip(*found, strict=True)]

    whole, parts = seen(), seen(accumulate=4)
    assert all(map(torch.equal, whole, parts))
    assert len(whole[0].unique(dim=0)) == 24
    assert (whole[1] == -1).any()
    assert not torch.equal(whole[0], seen(seed=1)[0])


@pytest.mark.slow
def test_a_weight_that_is_learnt_is_optimised_and_saved_beside_the_model(tmp_path):
    def trainer(folder=None):
        return Trainer(make(), data(), CONFIG, loss=LearnedWeight(dsm_loss), folder=folder)

    whole = trainer()
    whole.train()
    assert whole.loss.bias != 0
    trainer(tmp_path).train(5)
    again = trainer(tmp_path)
    again.train()
    assert_same(again, whole)
    stored, _ = checkpoint.load_tensors(tmp_path / "step-00000013.safetensors")
    assert torch.equal(stored["loss.0.bias"], whole.loss.bias)
    model, _ = checkpoint.load_tensors(tmp_path / "model.safetensors")
    assert model.keys() == whole.score.state_dict().keys()


class Slope(nn.Module):
    """Define a weight with a parameter."""

    def __init__(self):
        super().__init__()
        self.power = nn.Parameter(torch.ones((), dtype=torch.float64))

    def forward(self, sde, t):
        return sde.sigma(t) ** self.power


def test_a_module_bound_in_a_loss_is_optimised_and_a_frozen_one_is_not():
    slope, frozen = Slope(), Slope().requires_grad_(False).eval()
    loss = partial(dsm_loss, weight=lambda sde, t: slope(sde, t) + 0 * frozen(sde, t))
    trainer = Trainer(make(), data(), CONFIG, loss=loss)
    assert list(trainer._update.beside) == [slope]
    trainer.train()
    assert slope.power != 1
    assert not frozen.training


def test_a_loss_that_contains_the_trained_score_optimises_it_once():
    model = make()

    def loss(score, sde, x, *, noise, condition):
        return dsm_loss(score, sde, x, noise=noise, condition=condition) + 0 * model.mean

    trainer = Trainer(model, data(), CONFIG, loss=loss)
    assert not len(trainer._update.beside)
    assert len(trainer.optimizer.param_groups) == 1


@pytest.mark.slow
@pytest.mark.parametrize(
    ("change", "changed"),
    [
        (partial(dsm_loss, weight=min_snr(3)), r"dsm_loss\(weight=min_snr\(3, 1\)\)"),
        (partial(dsm_loss, law=LogNormal(0.0, 1.0)), r"dsm_loss\(law=LogNormal\(mean=0.0, std=1.0"),
        (squares, "squares"),
        (lambda score, sde, x, **given: dsm_loss(score, sde, x, **given), "<lambda>"),
    ],
)
def test_a_run_is_identified_by_its_loss(tmp_path, change, changed):
    Trainer(make(), data(), CONFIG, folder=tmp_path).train(1)
    match = rf"another loss: it was dsm_loss\(weight=edm\(1\)\) and is now {changed}"
    with pytest.raises(InvalidValueError, match=match):
        Trainer(make(), data(), CONFIG, loss=change, folder=tmp_path)


def doubled(x, generator):
    return 2 * x


def with_moments(mean):
    model = make()
    return ScoreModel(model.net, model.sde, (2,), moments=Moments(mean, var=1.0))


@pytest.mark.slow
@pytest.mark.parametrize(
    ("change", "told"),
    [
        ({"score": make().double()}, "was torch.float32 and is now torch.float64"),
        ({"score": with_moments(0.5)}, "its mean was"),
        ({"augment": doubled}, "another augment: it was None and is now doubled"),
    ],
)
def test_a_run_is_known_by_its_precision_its_moments_and_its_augmentation(tmp_path, change, told):
    options = {"score": make(), "data": data(), "config": CONFIG, "folder": tmp_path}
    Trainer(**options).train(1)
    with pytest.raises(InvalidValueError, match=told):
        Trainer(**options | change)


def test_a_description_holds_no_address_and_keeps_what_is_bound():
    stratified = partial(partial(dsm_loss, law=Stratified(LogNormal())), weight=sigma2)
    assert described(stratified) == (
        "dsm_loss(law=Stratified(law=LogNormal(mean=-1.2, std=1.2)), weight=sigma2)"
    )
    for loss in (LearnedWeight(partial(dsm_loss, control_variate=True)), Slope(), object()):
        assert " at 0x" not in described(loss)
    assert "loss=dsm_loss(control_variate=True), base=sigma2" in described(
        LearnedWeight(partial(dsm_loss, control_variate=True))
    )
    assert described(edm) == "edm"


def test_augmentations_that_differ_in_a_number_alone_have_different_descriptions():
    class Scaled:
        def __init__(self, scale):
            self.scale = scale

        def __call__(self, x, generator):
            return self.scale * x

    def scaled(scale):
        return lambda x, generator: scale * x

    assert described(Scaled(2)).endswith("Scaled(scale=2)")
    assert described(Scaled(2).__call__).endswith("Scaled(scale=2).__call__")
    assert described(scaled(0.5)).endswith("<lambda>(scale=0.5)")


@pytest.mark.parametrize("loss", ["dsm", dsm_loss.__call__, LearnedWeight, lambda score, x: x])
def test_an_invalid_loss_is_refused_before_the_first_step(loss):
    if loss == dsm_loss.__call__:
        loss = lambda score, sde, x, noise: x  # noqa: E731
    with pytest.raises(InvalidTypeError, match=r"loss must be a (function|callable)"):
        Trainer(make(), data(), CONFIG, loss=loss)


def test_a_loss_of_another_shape_is_refused_with_the_cure():
    def mean(score, sde, x, **given):
        return dsm_loss(score, sde, x, **given).mean()

    with pytest.raises(ShapeError, match=r"of the shape \(8,\), got \(\); .* the trainer averages"):
        Trainer(make(), data(), CONFIG, loss=mean).train()


# Moments


def warnings_of(moments, x, transform=None):
    shape = tuple(x.shape[1:])
    net = seeded(MLP, shape, hidden=(4,))
    score = ScoreModel(net, VESDE(), shape, moments=moments)
    given = Data(x) if transform is None else Data(x, transform=transform)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        Trainer(score, given, CONFIG)
    return [str(warning.message) for warning in caught if warning.category is UserWarning]


def normal(*shape):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(0))


def test_moments_that_the_data_do_not_have_cause_a_warning():
    images = 128 + 74 * normal(50, 1, 4, 4)
    mean, variance = warnings_of(None, images)
    assert "mean differs from the mean in the model's moments by up to" in mean
    assert "variance is 5" in variance
    assert all("moments=Moments(*data.moments())" in line for line in (mean, variance))
    assert warnings_of(Moments(*Data(images).moments()), images) == []


def test_moments_that_are_near_cause_no_warning():
    assert warnings_of(None, normal(100, 2)) == []
    assert warnings_of(None, 1.5 * normal(100, 2) + 2) == []
    assert warnings_of(None, torch.zeros(9, 2)) == []


def test_the_moments_are_those_of_the_transformed_data():
    pixels = (normal(50, 1, 4, 4).sigmoid() * 255).byte()
    assert warnings_of(Moments(0.0, var=0.25), pixels, BYTES) == []
    assert len(warnings_of(Moments(128.0, var=2000.0), pixels, BYTES)) == 1


def test_columns_of_very_different_variances_cause_a_warning():
    x = normal(100, 2) * torch.tensor([1.0, 0.01])
    (line,) = warnings_of(Moments(*Data(x).moments()), x)
    assert "one variance for all columns" in line
    assert "standardized()" in line
    assert warnings_of(Moments(*Data(x).standardized().moments()), x / x.std(0)) == []


# Held-out data

HELD = CONFIG.changed(steps=20, save_every=4, held_out=0.25)


@pytest.mark.slow
def test_the_loss_of_held_out_data_is_that_of_the_average_under_one_noise(tmp_path):
    trainer = Trainer(make(), data(), HELD, folder=tmp_path)
    assert (len(trainer.held_out.data), len(trainer._batches.data)) == (9, 28)
    trainer.train()
    found = {row["step"]: row["held_out"] for row in rows(tmp_path) if "held_out" in row}
    assert list(found) == [4, 8, 12, 16, 20]
    assert found[20] == trainer.held_out.loss(trainer.ema.model)
    assert trainer.held_out.best == min(found.values())
    assert found[trainer.held_out.at] == trainer.held_out.best
    best = ScoreModel.from_pretrained(tmp_path / "best")
    assert trainer.held_out.loss(best) == trainer.held_out.best


def test_held_out_data_are_never_trained_on():
    seen = []

    def spy(score, sde, x, **given):
        if torch.is_grad_enabled():
            seen.append(x)
        return dsm_loss(score, sde, x, **given)

    trainer = Trainer(make(), data(), HELD, loss=spy)
    trainer.train()
    known = {tuple(row) for row in torch.cat(seen).tolist()}
    assert len(known) == 28
    assert not known & {tuple(row) for row in trainer.held_out.data.x.tolist()}


def test_the_batches_of_held_out_data_do_not_change_their_loss():
    one, many = (Trainer(make(), data(), HELD.changed(batch_size=size)) for size in (8, 2))
    assert one.held_out.loss(one.score) == pytest.approx(many.held_out.loss(one.score), rel=1e-6)


def worse(trainer):
    """Return a run whose held-out loss is lowest at the first checkpoint."""
    values = iter([1.0, 3.0, 2.0, 5.0, 4.0])
    trainer.held_out.loss = lambda model: next(values)
    return trainer


def test_a_run_ends_after_its_patience(tmp_path):
    config = HELD.changed(patience=2)
    trainer = worse(Trainer(make(), data(), config, folder=tmp_path))
    trainer.train()
    assert (trainer.step, trainer.finished) == (12, True)
    stored = checkpoint.latest(tmp_path)[2]
    assert (stored["step"], stored["held_out"]) == (12, {"best": 1.0, "at": 4, "waited": 2})
    best = checkpoint.read_json(tmp_path / "best/config.json")
    assert (best["training"]["done"], best["held_out"]) == (4, 1.0)
    again = Trainer(make(), data(), config, folder=tmp_path)
    assert again.finished
    again.train()
    assert again.step == 12


@pytest.mark.slow
def test_a_run_with_held_out_data_is_the_same_in_parts_wherever_it_is_interrupted(tmp_path):
    config = HELD.changed(patience=3)
    whole = Trainer(make(), data(), config, folder=tmp_path / "whole")
    whole.train()
    for steps in (3, 1, 6, None):
        part = Trainer(make(), data(), config, folder=tmp_path / "parts")
        part.train(steps)
    assert_same(part, whole)
    assert part.held_out.as_json() == whole.held_out.as_json()
    stored = [
        checkpoint.load_tensors(tmp_path / name / "best/model.safetensors")[0]
        for name in ("whole", "parts")
    ]
    assert all(torch.equal(stored[0][k], stored[1][k]) for k in stored[0])


def test_a_best_model_that_a_kill_left_unwritten_is_written(tmp_path):
    trainer = worse(Trainer(make(), data(), HELD, folder=tmp_path))
    trainer.train(4)
    before = (tmp_path / "best/model.safetensors").read_bytes()
    (tmp_path / "best/model.safetensors").unlink()
    Trainer(make(), data(), HELD, folder=tmp_path).train(0)
    assert (tmp_path / "best/model.safetensors").read_bytes() == before


def test_a_missing_best_model_is_reported(tmp_path):
    worse(Trainer(make(), data(), HELD, folder=tmp_path)).train(8)
    shutil.rmtree(tmp_path / "best")
    with pytest.warns(RuntimeWarning, match="the best model, of step 4, is missing"):
        Trainer(make(), data(), HELD, folder=tmp_path).train(0)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"held_out": 1.0}, r"held_out must lie in \[0, 1\), got 1.0"),
        ({"patience": 3}, r"patience needs held-out data, .* held_out=0.1"),
        ({"held_out": 0.1, "patience": 0}, "patience must be an integer >= 1, got 0"),
    ],
)
def test_impossible_shares_of_held_out_data_are_refused(options, message):
    with pytest.raises(InvalidValueError, match=message):
        CONFIG.changed(**options)


def test_too_few_samples_to_hold_out_are_refused():
    with pytest.raises(InvalidValueError, match=r"cannot hold out the fraction 0.01 of 37 samples"):
        Trainer(make(), data(), CONFIG.changed(held_out=0.01))
