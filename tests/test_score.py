"""Test scores: predictions of networks, preconditioning, files, and wrappers."""

import json
import math
from contextlib import nullcontext
from dataclasses import replace

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from outputs import Output, meant
from strategies import SDES, UserSDE, gaussians, generators, log_floats, sdes, shapes, times_of
from torch import nn
from torch.testing import assert_close

from scoresde import checkpoint, targets
from scoresde.errors import (
    CheckpointError,
    InvalidTypeError,
    InvalidValueError,
    ShapeError,
    UnknownNameError,
)
from scoresde.nn import MLP, UNet
from scoresde.pretrained import store
from scoresde.pretrained.store import locate
from scoresde.score import (
    PREDICTIONS,
    Rescheduled,
    ScoreModel,
    from_denoiser,
    load,
)
from scoresde.sde import (
    EDMSDE,
    VESDE,
    VPSDE,
    Condition,
    Facts,
    Moments,
    NCSNLadder,
    SubVPSDE,
    expand,
    facts,
    process_of,
)

NAMES = sorted(PREDICTIONS)


class Wave(nn.Module):
    """Define a smooth network without weights, in the precision of its input."""

    def forward(self, x, c):
        return torch.sin(2 * x) + expand(c, x)


def denoised(model, x, t):
    """E[x_0 | x_t] by the score of a model."""
    return model.sde.reverse(model).denoise(x, t)


def built(make, *args, **options):
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(0)
        net = make(*args, **options)
    generator = torch.Generator().manual_seed(1)
    for p in net.parameters():  # the last layer begins at zero
        nn.init.normal_(p, std=0.3, generator=generator)
    return net


@st.composite
def problems(draw, dtype=torch.float64):
    """An SDE, a time, moments of the data, and a state x_t with the noise that is in it."""
    sde, shape, generator = draw(sdes()), draw(shapes(2, 3)), draw(generators())
    t = draw(times_of(sde))
    mean = torch.randn(shape[1:], generator=generator)
    # a model keeps its moments in single precision
    data = Moments(mean, var=float(torch.tensor(draw(log_floats(1e-2, 10)))))
    noise = torch.randn(shape, generator=generator, dtype=dtype)
    x0 = math.sqrt(data.var) * torch.randn(shape, generator=generator, dtype=dtype)
    return sde, t, data, x0, noise


# Predictions


@pytest.mark.slow
@pytest.mark.law(44)
@pytest.mark.parametrize("name", NAMES)
@given(problem=problems())
def test_every_prediction_gives_back_the_score(name, problem):
    sde, t, data, x0, noise = problem
    out, size = meant(name, sde, t, data.var, x0, noise)
    model = ScoreModel(Output(out), sde, x0.shape[1:], name, data).double()
    alpha, sigma = float(sde.alpha(t)), float(sde.sigma(t))
    centred = alpha * x0 + sigma * noise
    x = alpha * model.mean + centred
    rounding = 1e-12 * (1 + (x.abs() + centred.abs()).max())
    # a result is as exact as the largest term in it
    affine = PREDICTIONS[name](sde, t, model._var)
    a, b = abs(float(affine.a)), abs(float(affine.b))
    error = (model(x, t) + noise / sigma).abs()
    assert (error <= a * rounding + 1e-12 * b * (size + 1)).all()


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("kind", ["ve", "vp", "sub_vp", "cosine", "edm", "flow"])
def test_in_single_precision_the_score_is_good_to_1e_4_of_the_noise_at_eps(kind, name):
    sde, generator = SDES[kind], torch.Generator().manual_seed(0)
    t = torch.tensor(sde.eps, dtype=torch.float64)
    x0, noise = torch.randn(2, 64, 3, generator=generator, dtype=torch.float64)
    out, _ = meant(name, sde, t, 1.0, x0, noise)
    model = ScoreModel(Output(out.float()), sde, (3,), name)
    x = sde.perturb(x0, t, noise).float()
    error = float(sde.sigma(t)) * model(x, t) + noise
    assert error.abs().max() <= 1e-4


@pytest.mark.slow
@pytest.mark.parametrize("name", ["edm", "eps", "v", "flow", "sigma_score"])
@given(seed=st.integers(0, 2**32), low=log_floats(1e-4, 1e-2))
def test_no_score_loses_digits_where_the_noise_is_small(name, seed, low):
    """In float32 it is as good as its input: no difference of two large numbers is taken."""
    sde, x = VESDE(low, 1.0), torch.randn(16, 3, generator=torch.Generator().manual_seed(seed))
    model = ScoreModel(Wave(), sde, (3,), name)
    single, double = model(x, 0.0), model(x.double(), 0.0)
    assert single.dtype == torch.float32
    assert ((single - double).abs() * low <= 2e-6 * (1 + low * double.abs().max())).all()


@pytest.mark.parametrize("name", ["edm", "x0", "v"])
@given(seed=st.integers(0, 2**32), high=log_floats(1e2, 1e4))
def test_tweedies_formula_costs_a_rounding_of_the_state_where_the_noise_is_large(name, seed, high):
    sde = VESDE(0.01, high)
    x = high * torch.randn(16, 3, generator=torch.Generator().manual_seed(seed))
    model = ScoreModel(Wave(), sde, (3,), name)
    error = (denoised(model, x, 1.0) - denoised(model, x.double(), 1.0)).abs()
    assert (error <= 1e-5 + 4 * torch.finfo(torch.float32).eps * x.abs()).all()


@pytest.mark.law(45)
@given(problem=problems())
def test_the_network_receives_unit_variance_and_a_quarter_of_the_log_noise_level(problem):
    """For data N(mu, v): x = alpha mu + sqrt(alpha^2 v + sigma^2) u is seen as u."""
    sde, t, data, u, _ = problem
    model = ScoreModel(Output(), sde, u.shape[1:], moments=data).double()
    alpha, sigma = float(sde.alpha(t)), float(sde.sigma(t))
    spread = math.sqrt(alpha**2 * model._var + sigma**2)
    model(alpha * model.mean + spread * u, t)
    ((seen, c, _),) = model.net.asked
    assert_close(seen, u, rtol=1e-11, atol=1e-11 * (1 + 10 * alpha / spread))
    level = torch.tensor(0.25 * math.log(sigma / alpha), dtype=torch.float64)
    assert_close(c, level.expand(len(u)), rtol=1e-12, atol=1e-14)


def test_a_network_is_scaled_with_the_mean_of_the_variances():
    sde, x, t = VPSDE(), torch.ones(1, 2, 2), 0.3
    var = torch.tensor([[0.1, 0.5], [2.0, 5.4]])
    one, other = (
        ScoreModel(Wave(), sde, (2, 2), moments=Moments(0.0, var=v))
        for v in (var, float(var.mean()))
    )
    assert_close(one(x, t), other(x, t))
    assert torch.equal(one.moments.var, var)


@pytest.mark.law(45)
@given(sde=sdes(), var=log_floats(1e-2, 10), data=st.data())
def test_the_target_of_an_edm_network_has_unit_variance_and_is_uncorrelated_with_its_input(
    sde, var, data
):
    """Var F = 1 and Cov(F, x) = 0, exactly, for data of variance v."""
    t = data.draw(times_of(sde))
    model = ScoreModel(Output(torch.zeros(())), sde, (1,), moments=Moments(0.0, var=var)).double()
    var, one = model._var, torch.ones(1, 1, dtype=torch.float64)
    skip = float(denoised(model, one, t))
    model.net.out = one
    scale = float(denoised(model, 0 * one, t))
    alpha, sigma = float(sde.alpha(t)), float(sde.sigma(t))
    # F = (x_0 - skip (alpha x_0 + sigma z)) / scale, a linear function of x_0 and z
    of_x0, of_z = (1 - skip * alpha) / scale, -skip * sigma / scale
    rounding = 1e-12 * (1 + 1 / scale**2)
    assert abs(of_x0**2 * var + of_z**2 - 1) <= rounding * (1 + var)
    correlation = (alpha * of_x0 * var + sigma * of_z) / math.sqrt(alpha**2 * var + sigma**2)
    assert abs(correlation) <= rounding * (1 + var)


def test_an_edm_network_that_returns_zero_is_the_exact_score_of_gaussian_data():
    gaussian = targets.Gaussian([1.0, -2.0], var=0.25)
    for sde in SDES.values():
        model = ScoreModel(
            Output(), sde, (2,), moments=Moments(torch.tensor([1.0, -2.0]), var=0.25)
        )
        model = model.double()
        x = torch.randn(8, 2, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
        t = torch.tensor((sde.eps + sde.T) / 2, dtype=torch.float64)
        assert_close(model(x, t), gaussian.at(sde)(x, t), rtol=1e-12, atol=1e-12)


# What a model accepts and keeps


@given(st.data())
def test_a_time_may_be_one_number_or_one_for_each_sample(data):
    sde, shape = data.draw(sdes()), data.draw(shapes(1, 4))
    x = torch.randn(shape, generator=data.draw(generators()), dtype=torch.float64)
    t = data.draw(times_of(sde))
    model = ScoreModel(Wave(), sde, shape[1:])
    expected = model(x, t)
    assert expected.shape == shape
    for same in (float(t), t.reshape(1), t.expand(len(x))):
        assert torch.equal(model(x, same), expected)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32, torch.float64])
def test_the_score_has_the_dtype_of_the_state_and_the_network_its_own(dtype):
    # half precision holds 348, and not its square
    model = ScoreModel(built(MLP, 3, hidden=(8,)), VESDE(sigma_max=348.0), (3,))
    x = torch.randn(4, 3, generator=torch.Generator().manual_seed(0)).to(dtype)
    assert model(x, 0.5).dtype == dtype
    expected = model(348 * x.double(), 1.0)
    for net in (model.net, model.net.to(dtype)):
        model.net = net
        assert model(348 * x, 1.0).isfinite().all()
        assert (model(348 * x, 1.0) != 0).all()
        error = (model(348 * x, 1.0) - expected).abs().max()
        assert error <= 20 * torch.finfo(dtype).eps * expected.abs().max() + 1e-7


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_a_model_in_half_precision_keeps_the_moments_of_its_data(dtype):
    # bfloat16 takes 127.3 for 127.5, a hundred times the smallest noise
    data = Moments(127.3, var=torch.tensor([7.1, 1e5, 0.3]))
    model = ScoreModel(built(MLP, 3, hidden=(8,)), EDMSDE(), (3,), moments=data)
    mean, var = model.mean.clone(), model.var.clone()
    x = 127.3 + torch.randn(4, 3, generator=torch.Generator().manual_seed(0))
    exact = denoised(model, x, 0.01)
    for half in (model.to(dtype), model.double().to(dtype)):
        assert torch.equal(half.mean, mean)
        assert torch.equal(half.var, var)
        assert {p.dtype for p in half.net.parameters()} == {dtype}
        assert_close(denoised(half, x, 0.01), exact, rtol=0, atol=5e-3)


def test_autocast_affects_the_network_only():
    net = built(MLP, 3, hidden=(8,))
    dtypes = []
    net.head.register_forward_hook(lambda module, args, out: dtypes.append(out.dtype))
    model = ScoreModel(net, VESDE(), (3,))
    x = torch.randn(4, 3, generator=torch.Generator().manual_seed(0))
    exact = model(x, 0.5)
    model.autocast = torch.bfloat16
    rounded = model(x, 0.5)
    assert dtypes == [torch.float32, torch.bfloat16]
    assert rounded.dtype == torch.float32
    assert not torch.equal(rounded, exact)
    assert_close(rounded, exact, rtol=0.05, atol=0.05 * float(exact.detach().abs().max()))
    nn.init.zeros_(net.head.weight)
    nn.init.zeros_(net.head.bias)
    quiet = model(x, 0.5)
    model.autocast = None
    assert torch.equal(quiet, model(x, 0.5))


def test_a_condition_reaches_the_network():
    model, label = ScoreModel(Output(), VESDE(), (2,)), torch.tensor([1, 0, 2])
    x = torch.zeros(3, 2)
    one = model(x, 0.5, {"label": label})
    rsde = model.sde.reverse(model, condition=Condition({"label": label}))
    assert torch.equal(rsde.score(x, 0.5), one)
    model(x, 0.5)
    assert [list(condition) for _, _, condition in model.net.asked] == 2 * [["label"]] + [[]]


def test_an_empty_batch_has_an_empty_score():
    assert ScoreModel(Wave(), VESDE(), (2, 3))(torch.zeros(0, 2, 3), 0.5).shape == (0, 2, 3)


@pytest.mark.parametrize(
    ("shape", "message"),
    [
        ((2, 3), r"x must have shape \(B, 4\), got \(2, 3\)"),
        ((4,), r"x must have shape \(B, 4\), got \(4,\)"),
        ((2, 1, 4), r"got \(2, 1, 4\)"),
    ],
)
def test_a_state_of_another_shape_is_refused(shape, message):
    with pytest.raises(ShapeError, match=message):
        ScoreModel(Wave(), VESDE(), (4,))(torch.zeros(shape), 0.5)


@pytest.mark.parametrize("dtype", [torch.uint8, torch.int64, torch.bool])
def test_bytes_and_integers_are_refused_as_states(dtype):
    with pytest.raises(
        InvalidTypeError, match=r"must be floating.point, got .*x\.float\(\) / 127\.5 - 1"
    ):
        ScoreModel(Wave(), VESDE(), (4,))(torch.zeros(2, 4, dtype=dtype), 0.5)


def test_a_score_without_noise_is_refused_by_name():
    message = r"no noise at t = 0, .*a score is singular there; stay at or above eps = 0.001"
    with pytest.raises(InvalidValueError, match=message):
        ScoreModel(Wave(), VPSDE(), (4,))(torch.zeros(2, 4), 0.0)


@pytest.mark.parametrize("t", [-0.1, 1.1, math.nan])
def test_a_time_outside_of_the_sde_is_refused(t):
    with pytest.raises(InvalidValueError, match=r"time must lie in \[0, 1.0\], got "):
        ScoreModel(Wave(), VPSDE(), (4,))(torch.zeros(2, 4), t)


def test_an_impossible_model_is_refused():
    with pytest.raises(UnknownNameError, match="unknown predicts 'epx'; did you mean 'eps"):
        ScoreModel(Wave(), VESDE(), (2,), "epx")
    with pytest.raises(
        ShapeError, match=r"the mean in moments= must be a number or have the event shape"
    ):
        ScoreModel(Wave(), VESDE(), (2,), moments=Moments(torch.zeros(3), var=1.0))
    with pytest.raises(InvalidValueError, match="the data's variance must be positive"):
        ScoreModel(Wave(), VESDE(), (2,), moments=Moments(0.0, var=0.0))


def test_a_full_covariance_is_kept_as_its_diagonal():
    cov = torch.tensor([[2.0, 0.5], [0.5, 4.0]])
    model = ScoreModel(Wave(), VESDE(), (1, 2), moments=Moments(torch.zeros(1, 2), cov=cov))
    assert torch.equal(model.moments.var, torch.tensor([[2.0, 4.0]]))


# Files


def nets():
    return [
        (built(MLP, (2, 3), hidden=(8,), num_classes=3, condition={"y": (1, 4)}), (2, 3)),
        (
            built(
                UNet, 1, channels=(4, 6), blocks=1, patch=2, num_classes={"label": 3, "kind": 2},
                condition={"forcing": 2, "y": (3,)},
            ),
            (1, 6, 6),
        ),
    ]  # fmt: skip


@pytest.mark.slow
@pytest.mark.parametrize("which", [0, 1])
@pytest.mark.parametrize("kind", [k for k in SDES if not k.startswith("user")])
def test_a_model_comes_back_bit_for_bit(which, kind, tmp_path):
    net, shape = nets()[which]
    mean = torch.randn(shape, generator=torch.Generator().manual_seed(2))
    model = ScoreModel(net, SDES[kind], shape, "v", Moments(mean, var=0.3)).eval()
    model.steps = 17
    model.save_pretrained(tmp_path, licence="MIT")
    found = ScoreModel.from_pretrained(tmp_path)
    assert (found.sde, found.event_shape, found.predicts, found.steps) == (
        SDES[kind], shape, "v", 17,
    )  # fmt: skip
    assert not found.training
    state = found.state_dict()
    assert all(torch.equal(v, state[k]) for k, v in model.state_dict().items())
    x = torch.randn(3, *shape, generator=torch.Generator().manual_seed(3))
    t, label = SDES[kind].times(1)[0], {"label": torch.tensor([0, 2, -1])}
    assert torch.equal(found(x, t, label), model(x, t, label))
    assert json.loads((tmp_path / "config.json").read_text())["licence"] == "MIT"


def test_half_precision_halves_the_network_and_not_the_data(tmp_path):
    net, shape = nets()[1]
    model = ScoreModel(net, VESDE(), shape, moments=Moments(0.1234567, var=0.7654321))
    model.save_pretrained(tmp_path, dtype=torch.float16)
    stored, _ = checkpoint.load_tensors(tmp_path / "model.safetensors")
    kinds = {name: value.dtype for name, value in stored.items()}
    assert kinds.pop("mean") == kinds.pop("var") == torch.float32
    assert set(kinds.values()) == {torch.float16}
    found = ScoreModel.from_pretrained(tmp_path)
    assert next(found.parameters()).dtype == torch.float32
    assert torch.equal(found.var, model.var)
    for name, value in model.net.state_dict().items():
        assert torch.equal(found.net.state_dict()[name], value.half().float()), name
    assert next(model.parameters()).dtype == torch.float32


@pytest.mark.global_rng
def test_a_network_or_sde_of_a_foreign_class_must_be_given(tmp_path):
    ScoreModel(built(nn.Bilinear, 2, 1, 2), UserSDE(), (2,)).save_pretrained(tmp_path)
    message = r"has the class Bilinear, which scoresde does not define; pass it: from_pretrained\("
    with pytest.raises(CheckpointError, match=message):
        ScoreModel.from_pretrained(tmp_path)
    net = nn.Bilinear(2, 1, 2)
    with pytest.raises(
        CheckpointError, match=r"the sde of this model has the class UserSDE.*sde=\.\.\."
    ):
        ScoreModel.from_pretrained(tmp_path, net=net)
    ScoreModel.from_pretrained(tmp_path, net=net, sde=UserSDE())
    assert torch.equal(net.weight, built(nn.Bilinear, 2, 1, 2).weight)
    with pytest.raises(
        CheckpointError, match=r"does not fit ScoreModel; 1 of another shape: net.w"
    ):
        ScoreModel.from_pretrained(tmp_path, net=nn.Bilinear(1, 2, 2), sde=UserSDE())


def test_a_file_that_is_no_model_is_named(tmp_path):
    checkpoint.save_tensors(tmp_path / "model.safetensors", {}, {"step": 3})
    with pytest.raises(
        CheckpointError,
        match=r"model\.safetensors is not a model of scoresde, since it has no sde",
    ):
        ScoreModel.from_pretrained(tmp_path)
    ScoreModel(built(MLP, 2, hidden=(4,)), VESDE(), (2,)).save_pretrained(tmp_path)
    tensors, config = checkpoint.load_tensors(tmp_path / "model.safetensors")
    for change in (dict(sde=[]), dict(net="MLP"), dict(sde=dict(type="VESDE", sigma_min=-1))):
        checkpoint.save_tensors(tmp_path / "model.safetensors", tensors, {**config, **change})
        with pytest.raises(
            CheckpointError, match=r"model\.safetensors (does not describe|is not) a model of"
        ):
            ScoreModel.from_pretrained(tmp_path)
    (tmp_path / "gone").mkdir()
    with pytest.raises(CheckpointError, match=r"there is no file .*gone"):
        ScoreModel.from_pretrained(tmp_path / "gone")


@pytest.mark.parametrize("name", ["sde", "net", "steps", "transform", "pilot"])
def test_fields_that_a_user_stores_do_not_replace_the_description(name, tmp_path):
    model = ScoreModel(built(MLP, 2, hidden=(4,)), VESDE(), (2,))
    model.save_pretrained(tmp_path)
    with pytest.raises(InvalidValueError, match=f"file already has {name}"):
        model.save_pretrained(tmp_path, **{name: "mine"})
    assert ScoreModel.from_pretrained(tmp_path).sde == VESDE()


def test_a_packaged_model_is_found_by_its_name_alone(tmp_path, monkeypatch):
    model = ScoreModel(built(MLP, 2, hidden=(4,)), VESDE(), (2,))
    model.save_pretrained(tmp_path / "models" / "plane")
    monkeypatch.setattr(store, "_MODELS", tmp_path / "models")
    monkeypatch.chdir(tmp_path)
    assert locate("plane") == tmp_path / "models" / "plane" / "model.safetensors"
    (tmp_path / "plane").mkdir()  # someone's own folder is no packaged model
    assert torch.equal(load("plane").net.head.weight, model.net.head.weight)
    with pytest.raises(
        CheckpointError, match="no packaged model with this name; the packaged models are plane"
    ):
        load("moon")
    (tmp_path / "moon").mkdir()
    with pytest.raises(CheckpointError, match=r"the folder moon holds no model"):
        load("moon")


# Wrapped scores


@given(st.data())
def test_an_exact_denoiser_is_the_exact_score(data):
    sde = data.draw(sdes())
    moments = data.draw(gaussians((3,)))
    spread = {"var": moments.var} if moments.cov is None else {"cov": moments.cov}
    gaussian = targets.Gaussian(moments.mean, **spread)
    t = data.draw(times_of(sde))
    x = gaussian.sample(4, sde, t, generator=data.draw(generators()), dtype=torch.float64)
    score = from_denoiser(lambda x, t: gaussian.denoise(x, sde, t), sde)
    sigma, alpha = float(sde.sigma(t)), float(sde.alpha(t))
    expected = gaussian.score(x, sde, t)
    scale = 1 + (x.abs().max() + 10 * alpha) / sigma
    assert ((score(x, t) - expected).abs() * sigma <= 1e-9 * scale).all()


class Exact:
    """Define the score of a target under one SDE, with facts like those of a model."""

    def __init__(self, target, sde):
        self.target, self.sde, self.conditions = target, sde, []
        self.facts = Facts(
            sde=sde, event_shape=target.event_shape, moments=target.moments(), steps=7
        )

    def __call__(self, x, t, condition=None):
        self.conditions.append(condition)
        return self.target.score(x, self.sde, t)


MIXTURE = targets.GaussianMixture([0.3, 0.7], [[-1.0, 0.5], [2.0, 1.0]], stds=[0.2, 0.5])


@pytest.mark.slow
@given(own=sdes(continuous=True), other=sdes(continuous=True), data=st.data())
@settings(max_examples=50)
def test_a_rescheduled_score_is_the_exact_score_of_the_other_sde(own, other, data):
    """x / alpha has the same law in both where sigma / alpha is the same."""
    t = data.draw(times_of(other))
    covered = own.log_snr(torch.tensor([own.T, own.eps], dtype=torch.float64))
    wanted = other.log_snr(torch.tensor([other.T, other.eps], dtype=torch.float64))
    if not (covered[0] + 1e-6 <= wanted[0] and wanted[1] <= covered[1] - 1e-6):
        low, high = (-wanted / 2).exp().tolist()[::-1]
        own = VESDE(low / 1.1, 1.1 * high)
    rescheduled = Rescheduled(Exact(MIXTURE, own), other)
    x = MIXTURE.sample(4, other, t, generator=data.draw(generators()), dtype=torch.float64)
    sigma, alpha = float(other.sigma(t)), float(other.alpha(t))
    # the two times agree to rounding, which the log-ratio of noise to signal magnifies
    rounding = 1e-9 * (1 + alpha / sigma) ** 2
    assert_close(
        sigma * rescheduled(x, t), sigma * MIXTURE.score(x, other, t), rtol=rounding, atol=rounding
    )


@given(t=st.floats(0.002, 0.999), seed=st.integers(0, 2**32))
def test_a_vp_score_rescheduled_is_a_ve_score(t, seed):
    vp, ve = VPSDE(), VESDE(0.0108, 150.0)
    x = MIXTURE.sample(4, ve, t, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    through = Rescheduled(Exact(MIXTURE, vp), ve)(x, torch.tensor(t, dtype=torch.float64))
    exact, sigma = MIXTURE.score(x, ve, t), float(ve.sigma(torch.tensor(t)))
    assert ((through - exact).abs() * sigma).max() <= 1e-9


def test_a_rescheduled_score_has_the_facts_of_the_score_inside_except_the_sde():
    model, sde = Exact(MIXTURE, VPSDE()), VESDE(0.02, 20.0)
    rescheduled = Rescheduled(model, sde)
    assert facts(rescheduled) == replace(model.facts, sde=sde)
    label = Condition({"label": torch.tensor([1])})
    rescheduled(torch.zeros(1, 2), torch.tensor(0.5), label)
    assert model.conditions == [label]


@pytest.mark.parametrize("sde", [VESDE(1e-3, 20.0), VESDE(0.02, 1e3)])
def test_a_score_is_not_rescheduled_beyond_its_noise_levels(sde):
    message = r"noise levels sigma / alpha of VESDE.* beyond those of the score, 0\.01049 to 152"
    with pytest.raises(InvalidValueError, match=message):
        Rescheduled(Exact(MIXTURE, VPSDE()), sde)
    with pytest.raises(InvalidValueError, match="has no SDE in its facts"):
        Rescheduled(lambda x, t: x, sde)


LADDER = NCSNLadder((0.01, 0.1, 1.0))


@pytest.mark.parametrize(
    ("own", "other"),
    [
        (VESDE(), VESDE()),
        (VESDE(), VESDE(levels=20)),
        (VPSDE(levels=20), VPSDE(eps=0.01, levels=30)),
        (EDMSDE(), EDMSDE(eps=0.01)),
        (LADDER, NCSNLadder(LADDER.sigmas)),
        (LADDER, VESDE(0.01, 1.0, levels=3)),
    ],
)
def test_levels_and_eps_may_differ_from_the_models(own, other):
    between = own.levels and other.levels != own.levels
    with (
        pytest.warns(UserWarning, match="will be evaluated between them")
        if between
        else nullcontext()
    ):
        process_of(ScoreModel(Wave(), own, (2,)), other)


@pytest.mark.parametrize(
    ("own", "other"),
    [
        (VESDE(), VESDE(sigma_max=49.0)),
        (VESDE(), VESDE(T=2.0)),
        (VPSDE(), SubVPSDE(eps=1e-3)),
        (SubVPSDE(), VPSDE()),
        (VESDE(), VPSDE()),
        (LADDER, NCSNLadder((0.01, 0.1, 2.0))),
    ],
)
def test_another_sde_than_the_models_is_refused(own, other):
    message = r"this score belongs to .*, not to .*; leave sde= out, or sample from Rescheduled\("
    with pytest.raises(InvalidValueError, match=message):
        process_of(ScoreModel(Wave(), own, (2,)), other)


def test_a_denoiser_is_a_score_in_half_precision_where_the_square_of_the_noise_is_infinite():
    sde = VESDE(0.01, 348.0)
    score = from_denoiser(lambda x, t: 0.25 * x / 348**2, sde)
    x = 348 * torch.randn(4, 3, generator=torch.Generator().manual_seed(0)).half()
    exact = score(x.double(), torch.ones(4))
    assert_close(score(x, torch.ones(4)).double(), exact, rtol=3e-3, atol=1e-6)
    assert (exact != 0).all()


def test_a_function_goes_with_every_sde():
    process_of(lambda x, t: x, VESDE())
    score = from_denoiser(lambda x, t: x, VESDE())
    assert process_of(score, replace(score.sde, levels=5)).levels == 5
    with pytest.raises(InvalidValueError, match="this score belongs to VESDE"):
        process_of(score, VPSDE())


def test_loading_a_state_brings_the_preconditioning_with_it():
    net = built(MLP, 2)
    ours = ScoreModel(net, VPSDE(), (2,), moments=Moments(0.0, var=0.25))
    fresh = ScoreModel(net, VPSDE(), (2,))
    fresh.load_state_dict(ours.state_dict())
    x = torch.ones(3, 2)
    assert torch.equal(fresh(x, 0.5), ours(x, 0.5))


def test_a_pair_of_numbers_is_refused_as_moments():
    with pytest.raises(
        InvalidTypeError, match=r"moments must be a Moments or None, got \(0.0, 1.0\)"
    ):
        ScoreModel(built(MLP, 2), VPSDE(), (2,), moments=(0.0, 1.0))
