"""Compare samplers of installed libraries with ours, for the same model and the same noise."""

import importlib
import itertools
import math
from types import SimpleNamespace

import pytest
import torch
from torch import nn
from torch.testing import assert_close

import scoresde
from scoresde import (
    VESDE,
    VPSDE,
    BetaLadder,
    Classes,
    CosineSDE,
    Field,
    FlowSDE,
    Moments,
    interop,
    sample,
    targets,
)  # fmt: skip
from scoresde.arena.peers.from_k_diffusion import _sampling
from scoresde.errors import InvalidTypeError, InvalidValueError, ShapeError, UnknownNameError
from scoresde.nn import MLP, DiT, UNet
from scoresde.noise import Noise
from scoresde.samplers import DDIM, DPMSolverPP, Heun, Langevin, SASolver, TwoStage
from scoresde.score import ScoreModel
from scoresde.units import Range

# samplers of other libraries draw noise even where they do not use it
pytestmark = [pytest.mark.global_rng, pytest.mark.peers]

MIXTURE = targets.GaussianMixture([0.4, 0.6], [[-1.0, 0.5], [1.0, 0.0]], stds=0.3)


def randn(*shape, seed=0):
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def seeded(make):
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(0)
        return make().double()


class Backbone(nn.Module):
    """Define a small network of a state and one number."""

    def __init__(self):
        super().__init__()
        self.first, self.last = nn.Linear(3, 16), nn.Linear(16, 2)

    def forward(self, x, t, **condition):
        t = t.expand(len(x))[:, None].to(x)
        return self.last(self.first(torch.cat([x, t], 1)).tanh())


# --- diffusers ------------------------------------------------------------------------------------


def unet(**settings):
    diffusers = pytest.importorskip("diffusers")
    common = dict(
        sample_size=8, in_channels=2, out_channels=2, layers_per_block=1,
        block_out_channels=(8, 8), norm_num_groups=4,
        down_block_types=("DownBlock2D",) * 2, up_block_types=("UpBlock2D",) * 2,
    )  # fmt: skip
    return seeded(lambda: diffusers.UNet2DModel(**(common | settings))).eval()


def loop(net, scheduler, x, steps, **condition):
    """Return the loop of a pipeline of diffusers, without its clipping."""
    scheduler.set_timesteps(steps)
    with torch.no_grad():
        for t in scheduler.timesteps:
            x = scheduler.step(net(x, t, **condition).sample, t, scheduler.scale_model_input(x, t))
            x = x.prev_sample
    return x


@pytest.mark.slow
@pytest.mark.parametrize("prediction", ["epsilon", "v_prediction", "sample"])
def test_ddim_on_a_model_of_diffusers_equals_theirs(prediction):
    net = unet()
    scheduler = importlib.import_module("diffusers").DDIMScheduler(
        prediction_type=prediction, clip_sample=False
    )
    z = randn(2, 2, 8, 8)
    theirs = loop(net, scheduler, z, 20)
    score = interop.from_diffusers(net, scheduler)
    times = scheduler.timesteps / 999
    ours = sample(score, sampler="ddim", x=z, times=times, seed=0)
    assert_close(ours, theirs, rtol=1e-5, atol=1e-5)


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore:__array__")
@pytest.mark.parametrize("tau", [0.0, 0.6, 1.0])
def test_sa_solver_of_diffusers_is_ours_on_the_same_noise(tau):
    """Theirs counts the newest value, and adds a term of h cubed to order 2, left out here."""
    net, z = unet(), randn(2, 2, 8, 8)
    diffusers = importlib.import_module("diffusers")
    module = importlib.import_module("diffusers.schedulers.scheduling_sasolver")

    class Plain(diffusers.SASolverScheduler):
        def get_coefficients_fn(self, order, start, end, nodes, tau):
            found = super().get_coefficients_fn(order, start, end, nodes, tau)
            if order == 2:
                h, c = end - start, 1 + tau**2
                cubic = h**2 / 2 - (h * c - 1 + torch.exp(-c * h)) / c**2
                cubic = cubic * torch.exp(c * end) / (nodes[0] - nodes[1])
                found = [found[0] - cubic, found[1] + cubic]
            return found

    scheduler = Plain(prediction_type="sample", lower_order_final=False, tau_func=lambda t: tau)
    scheduler.alphas_cumprod = scheduler.alphas_cumprod.double()
    scheduler.set_timesteps(8)
    times = torch.cat([scheduler.timesteps, torch.zeros(1)]).double() / 999
    score = interop.from_diffusers(net, scheduler)
    # their tables are of float32
    ladder, noise, asked = score.sde, Noise.of(0, 2), iter(times)
    scheduler.sigmas = (ladder.sigma(times) / ladder.alpha(times)).double()
    with torch.no_grad(), pytest.MonkeyPatch.context() as patch:
        drawn = lambda shape, **options: noise.normal(z, next(asked))  # noqa: E731
        patch.setattr(module, "randn_tensor", drawn)
        theirs = z
        for t in scheduler.timesteps:
            theirs = scheduler.step(net(theirs, t).sample, t, theirs).prev_sample
    method = SASolver(order=2, corrector=1, tau=tau, window=(0.0, math.inf))
    ours = sample(score, sampler=method, x=z, times=times, seed=0, denoise=False)
    assert_close(ours, theirs, rtol=1e-5, atol=1e-5)


@pytest.mark.slow
def test_facts_are_read_from_a_model_of_diffusers():
    diffusers = pytest.importorskip("diffusers")
    scheduler = diffusers.DDPMScheduler(num_train_timesteps=50)
    facts = interop.from_diffusers(unet(num_class_embeds=4), scheduler).facts
    assert (facts.event_shape, facts.conditions) == ((2, 8, 8), {"label": Classes(4)})
    assert facts.sde.levels == 50
    t = facts.sde.times().flip(0)
    assert_close(facts.sde.alpha(t) ** 2, scheduler.alphas_cumprod.double(), rtol=1e-12, atol=0)
    assert interop.from_diffusers(unet(), scheduler).facts.conditions == {}


def test_labels_and_a_learned_variance_go_through():
    diffusers = pytest.importorskip("diffusers")
    net, scheduler = unet(num_class_embeds=4, out_channels=4), diffusers.DDPMScheduler()
    score, x, label = (
        interop.from_diffusers(net, scheduler),
        randn(2, 2, 8, 8),
        torch.tensor([1, 3]),
    )
    t = torch.tensor(500 / 999, dtype=torch.float64)
    with torch.no_grad():
        expected = net(x, 500, class_labels=label).sample[:, :2]
        found = -score.sde.sigma(t) * score(x, t, {"label": label})
    assert_close(found, expected, rtol=1e-6, atol=1e-6)


def test_a_scheduler_that_cannot_be_used_is_refused():
    diffusers = pytest.importorskip("diffusers")
    with pytest.raises(InvalidTypeError, match="FlowMatchEulerDiscreteScheduler' has no table"):
        interop.from_diffusers(unet(), diffusers.FlowMatchEulerDiscreteScheduler())
    with pytest.raises(InvalidValueError, match="the state is pure noise"):
        interop.from_diffusers(unet(), diffusers.DDIMScheduler(rescale_betas_zero_snr=True))
    scheduler = diffusers.DDIMScheduler()
    scheduler.register_to_config(prediction_type="flow")
    with pytest.raises(UnknownNameError, match="unknown prediction_type 'flow'"):
        interop.from_diffusers(unet(), scheduler)


@pytest.mark.parametrize("sde", [VPSDE(), VESDE(), FlowSDE()], ids=lambda sde: type(sde).__name__)
def test_a_score_in_a_loop_of_diffusers_ends_where_it_ends_here(sde):
    pytest.importorskip("diffusers")
    score, z = MIXTURE.at(sde), randn(5, 2)
    net, scheduler = interop.to_diffusers(score, levels=101)
    theirs = loop(net, scheduler, z, 20)
    times = sde.eps + (sde.T - sde.eps) * scheduler.timesteps.double() / 100
    alpha, sigma = sde.at(times[0], z)
    x = (alpha**2 + sigma**2).sqrt() * z
    ours = sample(score, sampler="ddim", x=x, times=times, seed=0)
    assert_close(ours, theirs, rtol=1e-8, atol=1e-8)


def test_a_level_that_the_score_does_not_have_is_refused():
    """Such as those of a scheduler with more levels."""
    diffusers = pytest.importorskip("diffusers")
    net, _ = interop.to_diffusers(MIXTURE.at(VPSDE()), levels=50)
    foreign = diffusers.DDIMScheduler()
    with pytest.raises(InvalidValueError, match="must lie from 0 to 49"):
        loop(net, foreign, randn(2, 2), 5)
    with pytest.raises(ShapeError, match="timestep must be a number or"):
        net(randn(3, 2), torch.tensor([1, 2]))
    with pytest.raises(InvalidValueError, match="at most 100,000"):
        interop.to_diffusers(MIXTURE.at(VPSDE()), levels=10**9)


def test_a_pipeline_of_diffusers_takes_a_score():
    diffusers = pytest.importorskip("diffusers")
    score = targets.Gaussian(torch.full((3, 8, 8), 0.5), std=0.01).at(VPSDE())
    pipeline = diffusers.DDIMPipeline(*interop.to_diffusers(score))
    pipeline.set_progress_bar_config(disable=True)
    images = pipeline(batch_size=2, num_inference_steps=20, output_type="np").images
    assert images.shape == (2, 8, 8, 3)
    assert abs(images - 0.75).max() < 0.05  # it maps [-1, 1] to [0, 1]


def test_a_model_converted_to_diffusers_and_back_is_the_same():
    diffusers = pytest.importorskip("diffusers")
    score = MIXTURE.at(BetaLadder(torch.linspace(1e-3, 0.2, 40).tolist()))
    back = interop.from_diffusers(*interop.to_diffusers(score), event_shape=(2,))
    for t in back.sde.times():
        assert_close(back(randn(5, 2), t), score(randn(5, 2), t), rtol=1e-8, atol=1e-8)
    # other schedulers are made of the first, as everywhere in diffusers
    _, scheduler = interop.to_diffusers(score)
    other = diffusers.DDPMScheduler.from_config(scheduler.config)
    assert_close(other.alphas_cumprod.double(), scheduler.alphas_cumprod, rtol=1e-4, atol=0)


# --- k-diffusion ----------------------------------------------------------------------------------


def k_diffusion():
    try:
        return _sampling()
    except ImportError as error:
        pytest.skip(str(error))


class Denoiser(nn.Module):
    """Define a preconditioned network, as `k_diffusion.layers.Denoiser` is."""

    def __init__(self):
        super().__init__()
        self.inner = seeded(Backbone)

    def forward(self, x, sigma):
        s = sigma[:, None]
        total = (s**2 + 1).sqrt()
        return x / total**2 + s / total * self.inner(x / total, sigma.log() / 4)


SIGMAS = torch.cat([torch.linspace(4.4, -4.0, 12, dtype=torch.float64).exp(), torch.zeros(1)])


@pytest.mark.parametrize(
    ("theirs", "ours"),
    [("euler", "euler"), ("heun", "heun"), ("dpmpp_2m", "dpmpp_2m"), ("dpm_2", "dpm2")],
)
def test_a_sampler_of_k_diffusion_is_ours_on_its_own_model(theirs, ours):
    denoiser, x = Denoiser(), SIGMAS[0] * randn(5, 2)
    method = getattr(k_diffusion(), f"sample_{theirs}")
    with torch.no_grad():
        expected = method(denoiser, x, SIGMAS.double(), disable=True)
    score = interop.from_k_diffusion(denoiser, scoresde.EDMSDE(T=100.0), event_shape=(2,))
    found = sample(score, sampler=ours, x=x, times=SIGMAS[:-1], seed=0)
    assert_close(found, expected, rtol=1e-8, atol=1e-8)


def test_lms_is_that_of_k_diffusion_up_to_its_quadrature():
    """Their integrals have a tolerance of 1e-4; to 0 they go with four slopes, we with one."""
    denoiser, x = Denoiser(), SIGMAS[0] * randn(5, 2)
    with torch.no_grad():
        expected = k_diffusion().sample_lms(denoiser, x, SIGMAS[:-1], disable=True)
    score = interop.from_k_diffusion(denoiser, scoresde.EDMSDE(T=100.0), event_shape=(2,))
    found = sample(score, sampler="lms", x=x, times=SIGMAS[:-1], seed=0, denoise=False)
    assert_close(found, expected, rtol=1e-5, atol=1e-5)


def test_two_stages_without_noise_are_dpmpp_2s_of_k_diffusion():
    denoiser, x = Denoiser(), SIGMAS[0] * randn(5, 2)
    with torch.no_grad():
        expected = k_diffusion().sample_dpmpp_2s_ancestral(
            denoiser, x, SIGMAS, disable=True, eta=0.0, noise_sampler=lambda t, s: 0 * x
        )
    score = interop.from_k_diffusion(denoiser, scoresde.EDMSDE(T=100.0), event_shape=(2,))
    found = sample(score, sampler="dpmpp_2s", x=x, times=SIGMAS[:-1], seed=0)
    assert_close(found, expected, rtol=1e-8, atol=1e-8)


def test_churn_is_counted_over_one_more_step_there():
    """Their last step, to 0, is the denoising here."""
    denoiser, x, noise = Denoiser(), SIGMAS[0] * randn(5, 2), Noise.of(0, 5)
    sampling, asked = k_diffusion(), iter(SIGMAS)
    drawn = SimpleNamespace(randn_like=lambda x: noise.normal(x, next(asked)))
    score = interop.from_k_diffusion(denoiser, scoresde.EDMSDE(T=100.0), event_shape=(2,))
    with torch.no_grad(), pytest.MonkeyPatch.context() as patch:
        patch.setattr(sampling.torch, "randn_like", drawn.randn_like)
        expected = sampling.sample_heun(
            denoiser, x, SIGMAS, disable=True, s_churn=3.0, s_tmax=50.0, s_tmin=SIGMAS[-2] * 1.01
        )
    steps = len(SIGMAS) - 2
    method = Heun(churn=3.0 * steps / (steps + 1), sigma_max=50.0)
    found = sample(score, sampler=method, x=x, times=SIGMAS[:-1], seed=0)
    assert_close(found, expected, rtol=1e-8, atol=1e-8)


def test_dpmpp_sde_is_that_of_k_diffusion_on_the_same_path():
    """Their noise sampler, given a Brownian path in 1 / sigma^2, is our noise."""
    sampling, denoiser, x = k_diffusion(), Denoiser(), SIGMAS[0] * randn(5, 2)
    noise = Noise.of(0, 5)

    def path(t, s):
        """Return the increments of our noise from t to the middle m, or to s."""
        step = SIGMAS[(SIGMAS - t).abs().argmin() + 1]
        m = (t * step).sqrt()
        clock = lambda sigma: sigma**-2  # noqa: E731
        first = (clock(m) - clock(t)).sqrt() * noise.normal(x, t)
        if torch.isclose(s, m):
            return first / (clock(m) - clock(t)).sqrt()
        rest = (clock(step) - clock(m)).sqrt() * noise.normal(x, t, 1)
        return (first + rest) / (clock(step) - clock(t)).sqrt()

    def exact(t):
        return SIGMAS[(SIGMAS - t).abs().argmin()]

    with torch.no_grad():
        expected = sampling.sample_dpmpp_sde(
            denoiser, x, SIGMAS, disable=True, noise_sampler=lambda t, s: path(exact(t), s)
        )
    score = interop.from_k_diffusion(denoiser, scoresde.EDMSDE(T=100.0), event_shape=(2,))
    assert scoresde.SAMPLERS["dpmpp_sde"] == TwoStage(r=0.5, tau=1.0)
    found = sample(score, sampler="dpmpp_sde", x=x, times=SIGMAS[:-1], seed=0)
    assert_close(found, expected, rtol=1e-7, atol=1e-7)


def test_euler_ancestral_is_ddim_with_eta_1():
    denoiser, x, noise = Denoiser(), SIGMAS[0] * randn(5, 2), Noise.of(0, 5)
    with torch.no_grad():
        expected = k_diffusion().sample_euler_ancestral(
            denoiser, x, SIGMAS, disable=True,
            noise_sampler=lambda t, s: noise.normal(x, t),
        )  # fmt: skip
    score = interop.from_k_diffusion(denoiser, scoresde.EDMSDE(T=100.0), event_shape=(2,))
    found = sample(score, sampler=DDIM(eta=1.0), x=x, times=SIGMAS[:-1], seed=0)
    assert_close(found, expected, rtol=1e-8, atol=1e-8)


@pytest.mark.parametrize("eta", [0.25, 1.0])
def test_their_eta_is_our_tau_squared(eta):
    denoiser, x, noise = Denoiser(), SIGMAS[0] * randn(5, 2), Noise.of(0, 5)
    with torch.no_grad():
        expected = k_diffusion().sample_dpmpp_2m_sde(
            denoiser, x, SIGMAS, disable=True, eta=eta,
            noise_sampler=lambda t, s: noise.normal(x, t),
        )  # fmt: skip
    score = interop.from_k_diffusion(denoiser, scoresde.EDMSDE(T=100.0), event_shape=(2,))
    method = DPMSolverPP(tau=eta**0.5)
    found = sample(score, sampler=method, x=x, times=SIGMAS[:-1], seed=0)
    assert_close(found, expected, rtol=1e-8, atol=1e-8)


def test_the_table_of_a_denoiser_of_k_diffusion_is_its_range_of_noise():
    k_diffusion()
    external = pytest.importorskip("k_diffusion.external")
    bar = (1 - torch.linspace(1e-4, 0.02, 100)).cumprod(0)
    denoiser = external.DiscreteEpsDDPMDenoiser(seeded(Backbone).float(), bar, quantize=False)
    sde = interop.from_k_diffusion(denoiser).sde
    assert (sde.eps, sde.T) == (float(denoiser.sigma_min), float(denoiser.sigma_max))


def test_a_score_of_ours_runs_in_samplers_of_k_diffusion():
    denoiser = interop.to_denoiser(MIXTURE.at(VPSDE()))
    x = SIGMAS[0] * randn(5, 2)
    expected = k_diffusion().sample_heun(denoiser, x, SIGMAS, disable=True)
    found = sample(
        MIXTURE.at(scoresde.EDMSDE(T=100.0)), sampler="heun", x=x, times=SIGMAS[:-1], seed=0
    )
    assert_close(found, expected, rtol=1e-7, atol=1e-7)


# --- azula ----------------------------------------------------------------------------------------


def schedules():
    noise = pytest.importorskip("azula.noise")
    return [noise.VPSchedule(), noise.VESchedule(0.01, 50.0), noise.CosineSchedule(),
            noise.RectifiedSchedule()]  # fmt: skip


@pytest.mark.parametrize("place", range(4))
def test_ddim_of_azula_is_ours_on_its_own_model(place):
    schedule = schedules()[place]
    azula = importlib.import_module("azula.sample")
    denoise = importlib.import_module("azula.denoise")
    denoiser = denoise.KarrasDenoiser(seeded(Backbone), schedule)
    score = interop.from_azula(denoiser, event_shape=(2,))
    x = schedule(torch.ones((), dtype=torch.float64))[1] * randn(5, 2)
    with torch.no_grad():
        expected = azula.DDIMSampler(denoiser, steps=10, silent=True, dtype=torch.float64)(x)
    times = torch.linspace(1, 0, 11, dtype=torch.float64)
    found = sample(score, sampler="ddim", x=x, times=times, seed=0, denoise=False)
    assert_close(found, expected, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("sde", [VPSDE(), VESDE(), FlowSDE()], ids=lambda sde: type(sde).__name__)
def test_a_score_of_ours_runs_in_samplers_of_azula_and_returns(sde):
    azula = pytest.importorskip("azula.sample")
    score = MIXTURE.at(sde)
    denoiser = interop.to_azula(score)
    x = sde.prior_sample((2,), n=5, generator=torch.Generator().manual_seed(0)).double()
    expected = azula.DDIMSampler(denoiser, steps=10, silent=True, dtype=torch.float64)(x)
    times = torch.linspace(sde.T, sde.eps, 11, dtype=torch.float64)
    found = sample(score, sampler="ddim", x=x, times=times, seed=0, denoise=False)
    assert_close(found, expected, rtol=1e-7, atol=1e-7)
    back = interop.from_azula(denoiser)
    t = torch.linspace(0.2, 0.9, 5, dtype=torch.float64)
    own = sde.eps + (sde.T - sde.eps) * t
    assert_close(back(x, t), score(x, own), rtol=1e-7, atol=1e-7)


@pytest.mark.parametrize("sde", [VPSDE(), FlowSDE()], ids=lambda sde: type(sde).__name__)
def test_scores_go_out_in_the_numbers_of_the_user(sde):
    """As bytes: to azula and to diffusers, whose states have other scales."""
    pytest.importorskip("azula.denoise")
    pytest.importorskip("diffusers")
    units, mean = Range(0, 255, levels=256), torch.tensor([0.3, -0.2]).double()
    exact = targets.Gaussian(mean, var=0.2).at(sde)
    score = scoresde.from_network(
        lambda x, t: -sde.at(t, x)[1] * exact(x, t), sde, "eps", event_shape=(2,), transform=units
    )
    law, edm = targets.Gaussian(units.inverse(mean), var=0.2 * 127.5**2), scoresde.EDMSDE(T=1e9)
    y, t = units.inverse(randn(4, 2)), torch.linspace(0.2, 0.9, 4).double()
    azula = interop.to_azula(score, units=True)
    alpha, sigma = azula.schedule(t)
    found = azula(alpha[:, None] * y, t).mean
    assert_close(found, law.denoise(y, edm, sigma / alpha), rtol=1e-8, atol=1e-8)
    net, scheduler = interop.to_diffusers(score, 50, units=True)
    bar = scheduler.alphas_cumprod[25].double()
    noise = net(bar.sqrt() * y, 25).sample
    found = y - (1 / bar - 1).sqrt() * noise
    spread = (1 / bar - 1).sqrt().expand(4)
    assert_close(found, law.denoise(y, edm, spread), rtol=1e-7, atol=1e-7)


# --- sbi ------------------------------------------------------------------------------------------


def estimator(kind, **settings):
    """Return an estimator of sbi with random weights, of two parameters and three observations."""
    builders = pytest.importorskip("sbi.neural_nets.net_builders.vector_field_nets")
    theta, x = 3 + 2 * randn(50, 2).float(), randn(50, 3, seed=1).float()
    build = builders.build_vector_field_estimator
    common = dict(estimator_type=kind, hidden_features=8, num_layers=1)
    return seeded(lambda: build(theta, x, **common, **settings)).eval()


@pytest.mark.slow
@pytest.mark.parametrize("sde_type", ["vp", "ve", "subvp"])
def test_the_flow_of_a_score_estimator_of_sbi_is_ours(sde_type):
    net = estimator("score", sde_type=sde_type)
    score, x = interop.from_sbi(net), randn(1, 3, seed=2)
    theta, t = randn(4, 2), torch.tensor(0.6, dtype=torch.float64)
    with torch.no_grad():
        theirs = net.ode_fn(theta, x, t)
        ours = score.sde.reverse(score, condition=scoresde.Condition({"x": x.expand(4, 3)}))
        assert_close(ours.drift(theta, t, eta=0.0), theirs, rtol=1e-5, atol=1e-5)
    assert score.facts.conditions == {"x": Field((3,))}
    assert score.facts.event_shape == (2,)


def test_an_estimator_of_sbi_brings_its_units_and_moments():
    plain = interop.from_sbi(estimator("flow")).facts
    assert (plain.moments, plain.transform) == (None, None)
    inside = interop.from_sbi(estimator("flow", z_score_x="independent")).facts
    assert_close(inside.moments.mean, torch.full((2,), 3.0), rtol=0.3, atol=0)
    assert_close(inside.moments.var, torch.full((2,), 4.0), rtol=0.5, atol=0)
    net = estimator("flow", z_score_x="independent", compose_standardization=True)
    outside = interop.from_sbi(net).facts
    assert_close(outside.moments.var, torch.ones(2))
    z = randn(5, 2)
    assert_close(outside.transform.inverse(z), net.from_z(z), rtol=1e-6, atol=1e-6)


def test_eulers_method_on_a_flow_of_sbi_is_theirs():
    net = estimator("flow")
    score, x, theta = interop.from_sbi(net), randn(1, 3, seed=2), randn(4, 2)
    grid = torch.linspace(0.999, 0.01, 20, dtype=torch.float64)
    ours = sample(
        score, sampler="euler", x=theta, times=grid, seed=0, denoise=False, condition={"x": x[0]}
    )
    with torch.no_grad():
        for now, then in itertools.pairwise(grid):
            theta = theta + (then - now) * net.ode_fn(theta, x, now)
    assert_close(ours, theta, rtol=1e-6, atol=1e-6)


# --- others, where they are installed -------------------------------------------------------------


def test_a_solver_of_flow_matching_is_ours():
    solver = pytest.importorskip("flow_matching.solver")
    net, z = seeded(Backbone), randn(5, 2)
    grid = torch.linspace(0.001, 0.99, 12, dtype=torch.float64)
    expected = solver.ODESolver(lambda x, t: net(x, t)).sample(
        z, step_size=None, method="euler", time_grid=grid
    )
    score = interop.from_velocity(net, event_shape=(2,))
    found = sample(score, sampler="euler", x=z, times=1 - grid, seed=0, denoise=False)
    assert_close(found, expected.detach(), rtol=1e-6, atol=1e-6)


def test_a_network_of_torchcfm_is_called_with_its_time_first():
    models = pytest.importorskip("torchcfm.models.unet.unet")
    options = dict(dim=(1, 8, 8), num_channels=32, num_res_blocks=1, channel_mult=(1,))
    net = seeded(lambda: models.UNetModelWrapper(**options)).float().eval()
    with torch.no_grad():
        for p in net.parameters():  # a new network ends in zeros
            p.add_(0.02 * torch.randn(p.shape))
    score = interop.from_velocity(lambda x, tau: net(tau, x), event_shape=(1, 8, 8))
    x, tau = randn(2, 1, 8, 8).float(), torch.full((2,), 0.3)
    with torch.no_grad():
        expected = (0.3 * net(tau, x) - x) / 0.7
        assert_close(score(x, 0.7), expected, rtol=1e-5, atol=1e-5)


def test_a_denoiser_of_deepinv_is_a_score():
    models = pytest.importorskip("deepinv.models")
    net = seeded(lambda: models.DRUNet(1, 1, pretrained=None, nc=(4, 4, 4, 4), nb=1)).eval()
    score = interop.from_deepinv(net, sigma_min=0.01, sigma_max=0.2, event_shape=(1, 16, 16))
    x = randn(2, 1, 16, 16)
    with torch.no_grad():
        assert_close(score(x, 0.1), (net(x, 0.1) - x) / 0.01, rtol=1e-6, atol=1e-6)


def test_a_denoiser_of_deepinv_is_sampled_as_by_its_own_solver():
    sampling = pytest.importorskip("deepinv.sampling")
    sde, noise = VESDE(0.02, 5.0), Noise.of(3, 4)
    times = torch.linspace(1, 0, 21, dtype=torch.float64)
    steps = iter(zip(times[1:], times[:-1], strict=True))

    class Net(torch.nn.Module):
        def forward(self, x, sigma, *_, **__):
            sigma = torch.as_tensor(sigma, dtype=torch.float64).reshape(-1)[0]
            return x / (1 + sigma.to(x) ** 2)  # E[x_0 | x] of a standard normal law

    class Solver(sampling.EulerSolver):
        def randn_like(self, x, *_):
            return noise.increment(x, *next(steps))

    theirs = sampling.VarianceExplodingDiffusion(
        denoiser=Net(), sigma_min=0.02, sigma_max=5.0, alpha=1.0, solver=Solver(times),
        minus_one_one=False,
    )  # fmt: skip
    score = interop.from_deepinv(Net(), sigma_min=0.02, sigma_max=5.0, event_shape=(1, 2, 2))
    x = 5 * randn(4, 1, 2, 2)
    found = sample(
        scoresde.Rescheduled(score, sde), None, "em", x=x, times=times, seed=3, denoise=False
    )
    assert_close(found, theirs.sample(x), rtol=1e-5, atol=1e-5)


# --- Song's corrector -----------------------------------------------------------------------------


def test_songs_corrector_is_the_batch_mean_rule():
    """`LangevinCorrector.update_fn` of score_sde_pytorch under a variance-exploding SDE."""
    sde, s, snr = VESDE(), torch.tensor(0.5, dtype=torch.float64), 0.16
    x, z = 0.01 * randn(4, 80), randn(4, 80, seed=1)
    grad = -x / sde.sigma(s) ** 2  # small beside that of the noise
    grad_norm = grad.reshape(4, -1).norm(dim=-1).mean()
    noise_norm = z.reshape(4, -1).norm(dim=-1).mean()
    size = (snr * noise_norm / grad_norm) ** 2 * 2
    found = Langevin(snr, norm="batch_mean").step_size(sde, s, grad, z)
    assert_close(found.flatten()[0], size, rtol=1e-12, atol=0)


# --- ONNX -----------------------------------------------------------------------------------------


class Plain(Backbone):
    """Define the same network, without Python's len."""

    def forward(self, x, t):
        return self.last(self.first(torch.cat([x, t[:, None]], 1)).tanh())


def vector(n):
    return torch.where(torch.arange(3 * n).reshape(n, 3) % 4 == 0, torch.nan, 0.5)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("make", "conditions"),
    [
        (lambda: ScoreModel(MLP((2,), hidden=(8,), condition={"y": 3}), VPSDE(), (2,)), [vector]),
        (
            lambda: ScoreModel(UNet(1, channels=(8, 8), num_classes=3), VESDE(), (1, 4, 4)),
            [lambda n: torch.arange(n) % 4 - 1],
        ),
        (lambda: interop.from_velocity(Plain(), event_shape=(2,)), []),
        (
            lambda: ScoreModel(
                DiT(1, width=8, depth=1, heads=2, patch=3, condition={"y": (3,)}),
                VPSDE(),
                (1, 5, 4),
            ),
            [vector],
        ),
    ],
)
def test_an_onnx_file_has_the_scores_values_at_any_batch_size(make, conditions, tmp_path):
    runtime = pytest.importorskip("onnxruntime")
    pytest.importorskip("onnxscript")
    score = make()
    with torch.no_grad():
        for p in score.parameters():  # a new network ends in zeros
            p.copy_(0.3 * torch.randn(p.shape))
    file = tmp_path / "score.onnx"
    interop.to_onnx(score, file)
    assert score.training
    run = runtime.InferenceSession(str(file))
    names = [given.name for given in run.get_inputs()]
    for n in (2, 1, 5):
        x, t = torch.randn(n, *score.event_shape), torch.linspace(0.2, 0.8, n)
        given = dict(zip(names[2:], (make(n) for make in conditions), strict=True))
        inputs = {"x": x, "t": t} | given
        (found,) = run.run(["score"], {name: value.numpy() for name, value in inputs.items()})
        exact = score.eval()(x, t, given or None).detach()
        scale = exact.abs().max().item()
        assert_close(torch.from_numpy(found), exact, rtol=0, atol=1e-5 * scale)
        score.train()
    late = inputs | {"t": 2 + t}
    (out,) = run.run(None, {name: value.numpy() for name, value in late.items()})
    assert torch.from_numpy(out).isnan().all()


@pytest.mark.slow
def test_an_onnx_file_in_units_takes_the_numbers_of_the_user(tmp_path):
    runtime = pytest.importorskip("onnxruntime")
    pytest.importorskip("onnxscript")
    # the moments are made in the graph, and runtimes do not know each function in float64
    known = Moments(torch.tensor([0.1, 0.2]), var=torch.tensor([0.5, 0.6]))
    model = ScoreModel(MLP((2,), hidden=(8,)), CosineSDE(), (2,), moments=known)
    model.transform = Range(0, 255)
    with torch.no_grad():
        for p in model.net.parameters():
            p.copy_(0.3 * torch.randn(p.shape))
    interop.to_onnx(model, tmp_path / "score.onnx", units=True)
    x, t = torch.randn(3, 2), torch.linspace(0.2, 0.8, 3)
    r = 127.5 * x + 127.5 * model.sde.alpha(t.double()).float()[:, None]
    run = runtime.InferenceSession(str(tmp_path / "score.onnx"))
    (found,) = run.run(None, {"x": r.numpy(), "t": t.numpy()})
    exact = model.eval()(x, t).detach() / 127.5
    assert_close(torch.from_numpy(found), exact, rtol=1e-4, atol=1e-6 * exact.abs().max().item())


def test_a_score_that_has_no_onnx_file_is_an_error_that_says_why(tmp_path):
    pytest.importorskip("onnxscript")
    unknown = interop.from_velocity(Backbone().float())
    with pytest.raises(InvalidValueError, match="event_shape="):
        interop.to_onnx(unknown, tmp_path / "score.onnx")

    class Deciding(nn.Module):
        def forward(self, x, t):
            return x if float(x.sum()) > 0 else -x

    clashing = scoresde.from_network(
        Backbone(), VPSDE(), "eps", event_shape=(2,), conditions={"x": Field((3,))}
    )
    with pytest.raises(InvalidValueError, match="have the names x"):
        interop.to_onnx(clashing, tmp_path / "score.onnx")

    deciding = interop.from_velocity(Deciding(), event_shape=(2,))
    with pytest.raises(InvalidValueError, match="cannot be exported to ONNX"):
        interop.to_onnx(deciding, tmp_path / "score.onnx")
    assert not list(tmp_path.iterdir())
