"""Test that a NaN in an argument of a public function is an error or has no effect.

The table has every public function of numbers (and the methods of a process, of a target and of
moments that users call) with arguments that work. One argument at a time becomes NaN: a number, one
entry of a tensor, or what a function returns.
"""

import dataclasses
import inspect
import math
import typing
from contextlib import nullcontext
from importlib import import_module
from types import SimpleNamespace

import pytest
import torch

import scoresde
from scoresde import (
    VESDE,
    VPSDE,
    EnergyScore,
    Moments,
    Noise,
    ScoreSDEError,
    divergence,
    ema,
    guidance,
    interop,
    likelihood,
    metrics,
    objectives,
    ode,
    targets,
    units,
)
from scoresde.data import Data
from scoresde.errors import NonFiniteError
from scoresde.sde import time_laws

SDE = VPSDE()
GENERATOR = torch.Generator().manual_seed(0)
X = torch.randn(12, 2, generator=GENERATOR)
Y = torch.randn(24, 2, generator=GENERATOR)
V = torch.rand(12, generator=GENERATOR, dtype=torch.float64) + 0.5
TARGET = targets.Gaussian([0.0, 1.0], std=[1.0, 0.5])
FOUND = scoresde.log_prob(TARGET.at(SDE), SDE, X, rtol=0.1, atol=0.1)
RSDE = SDE.reverse(lambda x, t: -x)


def score(x, t):
    return -x


def posterior(x):
    return x / 2, torch.ones_like(x)


LATENT = scoresde.Latent(TARGET.at(SDE), posterior, lambda e: 2 * e)


def energy(x, t):
    return (x**2).sum(1) / 2


def drawn():
    return torch.Generator().manual_seed(1)


def loss(function, **options):
    arguments = dict(score=score, sde=SDE, x=X, t=0.5, noise=Noise.of(0, len(X)))
    return function, {**arguments, "weight": objectives.sigma2, **options}


class Broken(time_laws.Uniform):
    """Define a law of times that is given by a function."""

    def __init__(self, law):
        self.law = law

    def __call__(self, sde, u):
        return self.law(sde, u)


def with_law(function):
    return lambda law, **given: function(law=Broken(law), **given)


law = time_laws.Uniform().__call__


def conditional(x, t, condition=None):
    return -x


def guided(function):
    """Samples under a guidance."""
    options = dict(sampler="ddim", shape=(2,), steps=2, seed=0, condition={"label": 0})
    return lambda **given: scoresde.sample(function(**given), SDE, **options)


def brought(function, **known):
    """Samples of a model that another library made."""
    options = dict(sampler="ddim", shape=(2,), steps=2, seed=0)
    return lambda **given: scoresde.sample(function(**known, **given), **options)


def noise(seed, *shape):
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed % 2**60))


TABLE = {
    "dsm_loss": loss(scoresde.dsm_loss),
    "dsm_loss, control variate": loss(scoresde.dsm_loss, control_variate=True),
    "dsm_loss, times drawn": loss(with_law(scoresde.dsm_loss), t=None, law=law),
    "dsm_loss of a denoiser": loss(
        lambda score, **given: scoresde.dsm_loss(scoresde.from_denoiser(score, SDE), **given)
    ),
    "dsm_loss of an energy": loss(scoresde.dsm_loss, score=EnergyScore(energy)),
    "ism_loss": loss(scoresde.ism_loss),
    "ssm_loss": loss(scoresde.ssm_loss),
    "fd_ssm_loss": loss(scoresde.fd_ssm_loss, step=0.1),
    "objectives.perturb": loss(lambda **given: (p := objectives.perturb(**given)).score(p.x)),
    "LearnedWeight": (
        objectives.LearnedWeight(scoresde.dsm_loss, features=4),
        dict(score=score, sde=SDE, x=X, t=0.5, noise=Noise.of(0, len(X))),
    ),
    "objectives.dsm_floor": (
        objectives.dsm_floor,
        dict(sde=SDE, t=0.5, moments=Moments(0.0, var=torch.ones(2)), weight=objectives.g2),
    ),
    "objectives.power": (objectives.power, dict(p=1.0)),
    "objectives.edm": (objectives.edm, dict(var=1.0)),
    "objectives.min_snr": (objectives.min_snr, dict(gamma=1.0, var=1.0)),
    "sample": (scoresde.sample, dict(score=score, sde=SDE, x=X, steps=2, seed=0)),
    "sample, times": (
        scoresde.sample,
        dict(score=score, sde=SDE, x=X, times=torch.tensor([1.0, 0.5]), seed=0, denoise=False),
    ),
    "trajectory": (
        lambda **given: list(scoresde.trajectory(**given))[-1].x,
        dict(score=score, sde=SDE, x=X, steps=2, seed=0),
    ),
    "from_network": (brought(scoresde.from_network, sde=SDE, predicts="eps"), dict(net=score)),
    "interop.from_azula": (
        brought(lambda mean: interop.from_azula(
            lambda x, t: SimpleNamespace(mean=mean(x, t)), scoresde.EDMSDE()
        )), dict(mean=score),
    ),
    "interop.from_deepinv": (
        brought(interop.from_deepinv), dict(denoiser=score, sigma_min=0.1, sigma_max=10.0)
    ),
    "interop.from_edm": (brought(interop.from_edm), dict(net=score)),
    "interop.from_k_diffusion": (brought(interop.from_k_diffusion), dict(denoiser=score)),
    "interop.from_velocity": (brought(interop.from_velocity), dict(velocity=score)),
    "guidance.classifier_free": (
        guided(guidance.classifier_free), dict(score=conditional, scale=2.0)
    ),
    "guidance.autoguidance": (
        guided(guidance.autoguidance), dict(score=conditional, weaker=conditional, scale=2.0)
    ),
    "guidance.classifier": (
        guided(guidance.classifier),
        dict(score=conditional, log_prob=lambda x, t, condition: energy(x, t), scale=2.0),
    ),
    "guidance.posterior": (
        lambda y, likelihood: scoresde.sample(
            guidance.posterior(TARGET.at(SDE), likelihood, shape=(2,)), sampler="ddim", steps=2,
            seed=0, condition={"measurement": y},
        ),
        dict(y=torch.zeros(2), likelihood=lambda y, x0: -(y - x0).square().sum(1)),
    ),
    "pilot": (scoresde.pilot, dict(score=score, sde=SDE, shape=(2,), n=2, steps=6)),
    "log_prob": (
        scoresde.log_prob, dict(score=score, sde=SDE, x=X, t=0.1, rtol=1e-2, atol=1e-2)
    ),
    "encode": (scoresde.encode, dict(score=score, sde=SDE, x=X, rtol=1e-2, atol=1e-2)),
    "decode": (scoresde.decode, dict(score=score, sde=SDE, latents=X, rtol=1e-2, atol=1e-2)),
    "likelihood.slerp": (likelihood.slerp, dict(a=X, b=Y[:12], weight=0.5)),
    "likelihood.latent_elbo": (
        likelihood.latent_elbo,
        dict(score=LATENT, x=X, std=0.5, draws=2, rtol=0.1, atol=0.1),
    ),
    "score.codes": (scoresde.score.codes, dict(encoder=posterior, x=X)),
    "likelihood.elbo": (likelihood.elbo, dict(score=score, sde=SDE, x=X, draws=2)),
    "likelihood.sample_with_log_prob": (
        likelihood.sample_with_log_prob,
        dict(score=score, sde=SDE, n=2, shape=(2,), rtol=1e-2, atol=1e-2, seed=0),
    ),
    "likelihood.effective_sample_size": (likelihood.effective_sample_size, dict(log_weights=V)),
    "likelihood.importance_bound": (likelihood.importance_bound, dict(values=Y)),
    "suggest": (scoresde.suggest, dict(data=Y)),
    "audit": (
        lambda **given: scoresde.audit.audit(**given).as_json() and None,
        dict(score=TARGET.at(SDE), sde=SDE, x=Y, levels=5, samples=4, steps=4, progress=False),
    ),
    "divergence.divergence": (divergence.divergence, dict(f=lambda x: -x, x=X)),
    "divergence.jacobian": (divergence.jacobian, dict(f=lambda x: -x, x=X)),
    "divergence.frobenius": (divergence.frobenius, dict(f=lambda x: x**2, x=X)),
    "divergence.hutchinson": (
        divergence.hutchinson, dict(f=lambda x: -x, x=X, probes=torch.ones(2, 12, 2))
    ),
    "ode.solve": (
        lambda **given: ode.solve(**given).y,
        dict(f=lambda t, y, rows: -y, y=X.double(), t0=0.0, t1=1.0),
    ),
    "ode.Tolerance": (ode.Tolerance, dict(rtol=1e-3, atol=1e-3)),
    "ema.fit": (
        lambda **given: ema.fit(**given).weights,
        dict(stored=[(ema.Power(0.1), 3), (ema.Power(0.2), 3)], target=ema.Power(0.15), at=3,
             epsilon=1e-7),
    ),
    "ema.gamma_of": (ema.gamma_of, dict(sigma=0.1)),
    "ema.sigma_of": (ema.sigma_of, dict(gamma=1.0)),
    "metrics.energy_distance": (metrics.energy_distance, dict(x=X, y=Y)),
    "metrics.evaluate": (
        metrics.evaluate, dict(samples=X, real=Y, resamples=0, level=0.9, progress=False)
    ),
    "metrics.evaluate, features": (
        metrics.evaluate, dict(samples=X, real=Y, features=lambda x: 2 * x, resamples=0)
    ),
    "metrics.frechet_distance": (metrics.frechet_distance, dict(x=X, y=Y)),
    "metrics.kernel_distance": (metrics.kernel_distance, dict(x=X, y=Y, bandwidth=1.0)),
    "metrics.mean_interval": (metrics.mean_interval, dict(values=V, level=0.9)),
    "metrics.memorisation": (
        metrics.memorisation, dict(x=X, held=Y[:12], train=Y[12:], quantile=0.1)
    ),
    "metrics.nearest_distance": (metrics.nearest_distance, dict(x=X, y=Y)),
    "metrics.precision_recall": (metrics.precision_recall, dict(x=X, y=Y, k=3)),
    "metrics.sliced_wasserstein": (
        metrics.sliced_wasserstein, dict(x=X, y=Y[:12], projections=4, generator=drawn())
    ),
    "metrics.total_variation": (
        metrics.total_variation, dict(p=torch.tensor([0.5, 0.5]), q=torch.tensor([0.25, 0.75]))
    ),
    "units.to_uint8": (units.to_uint8, dict(x=X)),
    "units.Range.restore": (units.Range(0, 7, levels=8).restore, dict(x=X)),
    "Data": (lambda x: Data(x).x, dict(x=X)),
    "bits_per_dim": (
        lambda values, x: scoresde.bits_per_dim(
            dataclasses.replace(FOUND, value=values), x, data_transform="uint8"
        ),
        dict(values=V, x=X.clamp(-0.9, 0.9)),
    ),
    "Dequantization": (likelihood.Dequantization, dict(levels=2, cell=1.0, origin=0.0)),
    "Dequantization, levels": (
        likelihood.Dequantization.centred(8), dict(y=torch.zeros(2, 2), generator=drawn())
    ),
    "Dequantization.level": (likelihood.Dequantization.centred(2).level, dict(x=torch.ones(2, 2))),
    "Moments": (Moments, dict(mean=torch.zeros(2), var=1.0)),
    "Moments.sample": (Moments(0.0, var=1.0).sample, dict(z=X)),
    "Moments.log_prob": (Moments(0.0, var=1.0).log_prob, dict(x=X)),
    "Noise.normal": (Noise.of(0, 12).normal, dict(like=X, t=0.5)),
    "Noise.increment": (Noise.of(0, 12).increment, dict(like=X, s=0.25, t=0.5)),
    "Noise.area": (Noise.of(0, 12).area, dict(like=X, s=0.25, t=0.5)),
    "Noise": (
        lambda horizon: Noise.of(0, 2, horizon=horizon).increment(X[:2], 0.1, 0.2),
        dict(horizon=1.0),
    ),
    "SDE.prior_log_prob": (SDE.prior_log_prob, dict(z=X)),
    "SDE.prior_mismatch": (SDE.prior_mismatch, dict(mean=torch.zeros(2), var=1.0)),
    "SDE.perturb": (SDE.perturb, dict(x0=X, t=0.5, noise=Y[:12])),
    "SDE.marginal": (SDE.marginal, dict(x0=X, t=0.5)),
    "SDE.transition": (SDE.transition, dict(s=0.1, t=0.5)),
    "SDE.drift": (SDE.drift, dict(x=X, t=0.5)),
    "SDE.diffusion": (SDE.diffusion, dict(t=0.5)),
    "SDE.times": (SDE.times, dict(steps=2, spacing=lambda sde, n: torch.linspace(1, 0, n + 1))),
    "SDE.sample_times": (with_law(SDE.sample_times), dict(n=3, law=law, generator=drawn())),
    "SDE.index": (VESDE(levels=3).index, dict(t=0.5)),
    "metrics.calibrate": (
        metrics.calibrate,
        dict(
            draw=lambda y, k, seed: noise(seed, len(y), k, 2),
            simulate=lambda n, seed: (noise(seed, n, 2), noise(seed + 1, n, 1)),
            n=20, draws=3, level=0.01, rerun=False,
            log_likelihood=lambda theta, y: -theta.square().sum(1),
            log_density=lambda theta, y: -theta.square().sum(1),
        ),
    ),
    "metrics.calibrate_pairs": (
        metrics.calibrate_pairs,
        dict(
            draw=lambda y, k, seed: noise(seed, len(y), k, 2), theta=noise(0, 40, 2),
            y=noise(1, 40, 1), n=20, draws=3, level=0.01,
            log_likelihood=lambda theta, y: -theta.square().sum(1),
            log_density=lambda theta, y: -theta.square().sum(1),
        ),
    ),
    "VESDE": (VESDE, dict(sigma_min=0.1, sigma_max=1.0, T=1.0, eps=0.1)),
    "ReverseSDE.score": (RSDE.score, dict(x=X, t=0.5)),
    "ReverseSDE.denoise": (RSDE.denoise, dict(x=X, t=0.5)),
    "ReverseSDE.drift": (RSDE.drift, dict(x=X, t=0.5, eta=0.5)),
    "ReverseSDE.diffusion": (RSDE.diffusion, dict(t=0.5, eta=0.5)),
    "from_denoiser": (
        lambda denoiser: scoresde.sample(
            scoresde.from_denoiser(denoiser, SDE), x=X, steps=1, seed=0
        ),
        dict(denoiser=score),
    ),
    "Rescheduled": (
        lambda t: scoresde.Rescheduled(TARGET.at(SDE), scoresde.EDMSDE(T=50.0, eps=0.1))(X, t),
        dict(t=torch.full((12,), 0.5)),
    ),
    "Target.sample": (TARGET.sample, dict(n=2, sde=SDE, t=0.5, generator=drawn())),
    **{
        f"Target.{name}": (getattr(TARGET, name), dict(x=X, sde=SDE, t=0.5))
        for name in ("log_prob", "score", "denoise", "responsibilities", "assign")
    },
}  # fmt: skip


# Maps of a state that are part of every step: a NaN of an entry stays in that entry.
HANDED_ON = {
    "divergence.divergence", "divergence.jacobian", "divergence.hutchinson", "divergence.frobenius",
    "SDE.perturb", "SDE.marginal", "SDE.drift",
}  # fmt: skip


def broken(value):
    """Return the value with a NaN in it, or None where it has no room for one."""
    if isinstance(value, (bool, torch.Generator)):
        return None
    if isinstance(value, float):
        return math.nan
    if isinstance(value, torch.Tensor) and value.is_floating_point():
        value = value.clone()
        value.view(-1)[-1] = math.nan
        return value
    if callable(value) and not dataclasses.is_dataclass(value):
        return lambda *args: _spoilt(value(*args))
    return None


def _spoilt(out):
    return tuple(map(_spoilt, out)) if isinstance(out, tuple) else out * math.nan


def tensors(found):
    """All numbers of a result."""
    if isinstance(found, (tuple, list)):
        return [x for part in found for x in tensors(part)]
    if isinstance(found, (float, torch.Tensor)):
        return [torch.as_tensor(found)]
    if dataclasses.is_dataclass(found) and not isinstance(found, type):
        return tensors([getattr(found, field.name) for field in dataclasses.fields(found)])
    return []


CASES = [
    pytest.param(name, argument, id=f"{name}({argument}=nan)")
    for name, (_, arguments) in TABLE.items()
    for argument, value in arguments.items()
    if broken(value) is not None
]


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("name", TABLE)
def test_every_call_of_the_table_works(name):
    function, arguments = TABLE[name]
    assert all(bool(x.isfinite().all()) for x in tensors(function(**arguments)))


@pytest.mark.slow
@pytest.mark.parametrize(("name", "argument"), CASES)
def test_a_nan_is_an_error(name, argument):
    function, arguments = TABLE[name]
    with nullcontext() if shows(name, argument) else pytest.raises(ScoreSDEError):
        found = function(**{**arguments, argument: broken(arguments[argument])})
        wanted = argument == "like"  # of which only the shape counts
        assert all(bool(x.isfinite().all()) for x in tensors(found)) == wanted


def shows(name, argument):
    """Whether a NaN is no error, but handed on, or nothing that is looked at."""
    return argument == "like" or (name in HANDED_ON and argument != "t")


def test_a_derivative_that_is_nan_where_the_score_is_finite_is_an_error():
    def bent(x, t):
        return -x + 0 * (x - x.detach()).abs().sqrt()  # the square root has no slope at 0

    for function in (scoresde.ism_loss, scoresde.ssm_loss):
        with pytest.raises(NonFiniteError, match="the loss is NaN or infinite in samples"):
            function(bent, SDE, X, noise=Noise.of(0, len(X)))
    with pytest.raises(ScoreSDEError):
        scoresde.log_prob(bent, SDE, X)


@pytest.mark.parametrize(
    ("dtype", "far"), [("float16", 1e4), ("float32", 1e30), ("float64", 1e200)]
)
def test_points_whose_density_overflows_are_named(dtype, far):
    x = torch.tensor([[0.0, 1.0], [far, 0.0]], dtype=getattr(torch, dtype))
    for function in (TARGET.log_prob, SDE.prior_log_prob, Moments(0.0, var=1.0).log_prob):
        assert function(x[:1]).isfinite().all()
        with pytest.raises(
            NonFiniteError, match=f"points .1. are so far from the data that torch.{dtype}"
        ):
            function(x)


def test_points_whose_component_cannot_be_determined_are_named():
    pair = targets.GaussianMixture([0.5, 0.5], [[0.0, 0.0], [1.0, 0.0]], stds=0.3)
    far = torch.tensor([[1e200, 0.0]], dtype=torch.float64)
    for function in (pair.score, pair.denoise, pair.responsibilities, pair.assign):
        with pytest.raises(NonFiniteError, match="are so far from the data"):
            function(far)


def test_the_part_of_a_loss_that_is_nan_is_named():
    x, noise = X.double(), Noise.of(0, len(X))
    for function in (scoresde.dsm_loss, scoresde.ism_loss, scoresde.ssm_loss, scoresde.fd_ssm_loss):
        for options, words in (
            (dict(score=lambda x, t: x * math.nan), "the score returned NaN or infinity"),
            (dict(score=lambda x, t: x * 1e200), "the loss is NaN or infinite in samples"),
            (dict(x=x * math.nan), "x holds NaN or infinity"),
            (dict(weight=lambda sde, t: t * math.nan), "the weight is NaN or infinite"),
        ):
            given = {"score": score, "sde": SDE, "x": x, "noise": noise, **options}
            with pytest.raises(NonFiniteError, match=words):
                function(**given)
            with objectives.passing():  # as a trainer does
                assert not function(**given).isfinite().all()


def test_every_public_function_of_numbers_is_in_the_table():
    """Those that a door checks, and whose arguments are numbers, tensors or functions of them."""
    known = {getattr(function, "__wrapped__", function) for function, _ in TABLE.values()}
    names = {name.split(",")[0].split(".")[-1].split()[0] for name in TABLE}
    modules = [scoresde, *(import_module(f"scoresde.{name}") for name in scoresde._MODULES)]
    missing = [
        f"{module.__name__}.{name}"
        for module in modules
        for name in getattr(module, "__all__", ())
        if hasattr(getattr(module, name), "__wrapped__")
        and inspect.isfunction(getattr(module, name))
        and any(kind in str(hint) for hint in typing.get_type_hints(getattr(module, name)).values()
                for kind in ("Tensor", "float", "Callable"))
        and getattr(module, name).__wrapped__ not in known and name not in names | ELSEWHERE
    ]  # fmt: skip
    assert not missing


# Functions without numbers as arguments, or that write them into a file or a picture.
ELSEWHERE = {
    "pilot", "load", "check", "reconstruct", "compare", "contenders", "group", "halves",
    "animate", "bars", "curve", "field", "images", "ladder", "loss_by_noise", "pareto", "points",
    "samples", "signals", "strip", "volumes",
}  # fmt: skip
