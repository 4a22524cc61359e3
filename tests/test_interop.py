"""Test conversions from and to models of other libraries that need no other library."""

import itertools
import math

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn
from torch.testing import assert_close

import scoresde
from scoresde import (
    EDMSDE,
    VESDE,
    VPSDE,
    BetaLadder,
    Classes,
    CosineSDE,
    FlowSDE,
    Moments,
    ScoreModel,
    SubVPSDE,
    from_network,
    interop,
    sample,
    targets,
)
from scoresde.errors import (
    InvalidTypeError,
    InvalidValueError,
    MissingExtraError,
    ShapeError,
    UnknownNameError,
)
from scoresde.noise import Noise
from scoresde.samplers import ERSDE, Heun, Restart, RestartInterval
from scoresde.sde import expand
from scoresde.training import Optimiser, TrainConfig, Trainer
from scoresde.units import Range, Standardize

LADDER = BetaLadder(torch.linspace(1e-3, 0.2, 40).tolist())
SDES = [VPSDE(), SubVPSDE(), VESDE(), EDMSDE(), CosineSDE(), FlowSDE(), LADDER]
MIXTURE = targets.GaussianMixture([0.4, 0.6], [[-1.0, 0.5], [1.0, 0.0]], stds=0.3)
X = torch.randn(6, 2, generator=torch.Generator().manual_seed(0), dtype=torch.float64)


class Net(nn.Module):
    """Define a small network with random weights, of a state, a time and maybe a class."""

    def __init__(self, seed=0, classes=0):
        super().__init__()
        with torch.random.fork_rng(devices=[]):
            torch.default_generator.manual_seed(seed)
            self.first, self.last = nn.Linear(3, 16), nn.Linear(16, 2)
            self.label = nn.Embedding(classes, 16) if classes else None
        self.asked = []

    def forward(self, x, t, label=None):
        assert t.shape == (len(x),)
        self.asked.append(t)
        h = self.first(torch.cat([x, t[:, None].to(x)], 1)).tanh()
        return self.last(h if label is None else h + self.label(label))


def truths(sde):
    """What a network that is exact predicts, by name, of the mixture under an SDE."""
    score = MIXTURE.at(sde)

    def at(x, t):
        alpha, sigma = (expand(c, x) for c in (sde.alpha(t), sde.sigma(t)))
        s = score(x, t)
        return alpha, sigma, s, -sigma * s, (x + sigma**2 * s) / alpha

    def v(x, t):
        alpha, sigma, _, noise, x0 = at(x, t)
        return alpha * noise - sigma * x0

    def flow(x, t):
        f, g2 = sde.coefficients(t)
        return expand(f, x) * x - expand(g2, x) / 2 * score(x, t)

    return {
        "eps": lambda x, t: at(x, t)[3],
        "x0": lambda x, t: at(x, t)[4],
        "v": v,
        "flow": flow,
        "score": score,
        "sigma_score": lambda x, t: at(x, t)[1] * at(x, t)[2],
    }


class Sigmas:
    """Define a denoiser of k-diffusion with such a smallest noise."""

    sigma_max = 80.0

    def __init__(self, sigma_min):
        self.sigma_min = sigma_min

    def __call__(self, x, sigma):
        return x


# --- from_network ---------------------------------------------------------------------------------


@given(st.sampled_from(SDES), st.floats(0.02, 0.98))
def test_an_exact_network_is_the_score_for_every_prediction(sde, place):
    t = torch.full((6,), sde.eps + place * (sde.T - sde.eps), dtype=torch.float64)
    x = sde.perturb(MIXTURE.sample(6, generator=torch.Generator().manual_seed(1)).double(), t, X)
    exact = MIXTURE.at(sde)(x, t)
    for name, net in truths(sde).items():
        found = from_network(net, sde, name)(x, t)
        assert_close(found, exact, rtol=1e-8, atol=1e-8 * float(exact.abs().max()))


@pytest.mark.parametrize(
    ("time", "expected"),
    [
        ("t", lambda sde, t: t),
        ("sigma", lambda sde, t: sde.sigma(t)),
        ("log_sigma", lambda sde, t: sde.sigma(t).log()),
        ("index", lambda sde, t: (t * 39).round().long()),
        ("999t", lambda sde, t: 999 * t),
        ("1-t", lambda sde, t: 1 - t),
        (lambda sde, t: t**2, lambda sde, t: t**2),
    ],
)
def test_a_network_receives_its_own_time(time, expected):
    net = Net().double()
    score = from_network(net, LADDER, "eps", time, event_shape=(2,))
    t = torch.tensor([0.1, 0.3, 0.5, 0.7, 0.9, 1.0], dtype=torch.float64)
    score(X, t)
    assert_close(net.asked[-1], expected(LADDER, t))
    score(X, 0.5)
    assert_close(net.asked[-1], expected(LADDER, torch.full((6,), 0.5, dtype=torch.float64)))


def test_the_score_has_the_facts_that_were_given():
    known = dict(
        event_shape=(2,), moments=Moments(0.5, var=20.0), steps=17,
        transform=Standardize((1.0, 2.0), (3.0, 4.0)), conditions={"label": Classes(3)},
    )  # fmt: skip
    facts = scoresde.facts(from_network(Net(classes=3), VPSDE(), "eps", **known))
    moments = known.pop("moments")
    assert {name: getattr(facts, name) for name in known} == known
    assert (facts.moments.mean, facts.moments.var) == (moments.mean, moments.var)
    known["moments"] = moments
    assert (facts.sde, facts.passes) == (VPSDE(), 1)
    label = {"label": torch.tensor([0, 1, 2])}
    score = from_network(Net(classes=3), VPSDE(), "v", "999t", **known)
    x = sample(score, sampler="ddim", n=3, seed=0, condition=label, units=True)
    again = sample(score, sampler="ddim", n=3, seed=0, condition=label, steps=17)
    assert_close(x, known["transform"].inverse(again))


def test_a_network_is_trained_and_runs_in_evaluation_mode():
    net = Net()
    score = from_network(net, VPSDE(), "eps", event_shape=(2,))
    before = [p.clone() for p in net.parameters()]
    data = MIXTURE.sample(16, generator=torch.Generator().manual_seed(0))
    config = TrainConfig(steps=3, batch_size=8, optimiser=Optimiser(lr=0.1, warmup=0))
    Trainer(score, data, config).train(progress=False)
    assert not any(torch.equal(a, b) for a, b in zip(before, net.parameters(), strict=True))
    assert net.training
    modes = []
    net.register_forward_hook(lambda module, *rest: modes.append(module.training))
    sample(score, sampler="ddim", steps=2, seed=0)
    assert set(modes) == {False}
    assert net.training


def test_a_float32_network_takes_states_of_any_precision():
    score = from_network(Net(), VPSDE(), "eps")
    exact = from_network(Net().double(), VPSDE(), "eps")(X, 0.5)
    for dtype, tolerance in ((torch.float64, 1e-6), (torch.float32, 1e-6), (torch.float16, 5e-3)):
        found = score(X.to(dtype), 0.5)
        assert found.dtype == dtype
        assert_close(found.double(), exact, rtol=tolerance, atol=tolerance)


@pytest.mark.parametrize(
    "make",
    [lambda net: from_network(net, VPSDE(), "eps"), lambda net: ScoreModel(net, VPSDE(), (2,))],
)
def test_weights_that_are_integers_do_not_round_the_state(make):
    """Such as the tables of a quantised layer, before the others."""

    class Table(Net):
        def __init__(self):
            super().__init__()
            steps = nn.Parameter(torch.arange(3), requires_grad=False)
            self._parameters = {"steps": steps, **self._parameters}

    with torch.random.fork_rng(devices=[]):
        plain, table = Net(), Table()
    table.load_state_dict(plain.state_dict(), strict=False)
    assert_close(make(table)(X, 0.5), make(plain)(X, 0.5), rtol=0, atol=0)


@pytest.mark.slow
def test_a_score_can_be_used_everywhere():
    sde = VPSDE()
    score = from_network(truths(sde)["eps"], sde, "eps", event_shape=(2,))
    exact, x = MIXTURE.at(sde), MIXTURE.sample(4, generator=torch.Generator().manual_seed(2))
    options = dict(rtol=1e-5, atol=1e-5)
    assert_close(
        scoresde.log_prob(score, sde, x.double(), **options).value,
        scoresde.log_prob(exact, sde, x.double(), **options).value, rtol=1e-4, atol=1e-4,
    )  # fmt: skip
    flow = FlowSDE(T=0.98, eps=0.02)
    a, b = (scoresde.Rescheduled(s, flow)(X, 0.5) for s in (score, exact))
    assert_close(a, b, rtol=1e-8, atol=1e-8)


@pytest.mark.parametrize(
    ("call", "error", "message"),
    [
        (lambda: from_network(Net(), VPSDE(), "epsilon"), UnknownNameError, "did you mean 'eps'"),
        (lambda: from_network(Net(), VPSDE(), "edm"), UnknownNameError, "predicts"),
        (lambda: from_network(Net(), VPSDE(), "eps", "tau"), UnknownNameError, "unknown time"),
        (lambda: from_network(Net(), VPSDE(), "eps", "index"), InvalidValueError, "needs an SDE"),
        (lambda: from_network(Net(), EDMSDE(), "x0", "1-t"), InvalidValueError, "on \\[0, 1\\]"),
        (
            lambda: from_network(Net(), VPSDE(), "eps", event_shape=(3,))(X, 0.5),
            ShapeError, r"x must have shape \(B, 3\)",
        ),
        (
            lambda: from_network(lambda x, t: x[:, :1], VPSDE(), "eps")(X, 0.5),
            ShapeError, "the network must return the shape",
        ),
        (
            lambda: from_network(lambda x, t: (x,), VPSDE(), "eps")(X, 0.5),
            InvalidTypeError, "the network must return a tensor",
        ),
        (
            lambda: from_network(Net(), VPSDE(), "eps", lambda sde, t: t[None, None])(X, 0.5),
            ShapeError, "time= must return",
        ),
        (
            lambda: from_network(Net(), VPSDE(), "eps", lambda sde, t: 0.5)(X, 0.5),
            InvalidTypeError, "time= must return a tensor",
        ),
        (lambda: from_network(Net(), VPSDE(), "eps")(X, 0.0), InvalidValueError, "no noise at t"),
        (lambda: from_network(Net(), VPSDE(), "eps", steps=0), InvalidValueError, "steps must"),
        (lambda: interop.from_azula(Net()), InvalidTypeError, "needs an attribute schedule"),
        (lambda: interop.from_diffusers(Net(), object()), InvalidTypeError, "no table"),
        (lambda: interop.from_sbi(Net()), InvalidTypeError, "not an estimator of NPSE or FMPE"),
        (lambda: interop.from_edm(Net(), step=3), InvalidTypeError, "takes no argument step="),
        (
            lambda: interop.to_denoiser(MIXTURE.at(EDMSDE(T=10.0)))(X, 11.0),
            InvalidValueError, r"time must lie in \[0, 10",
        ),
        (
            lambda: interop.to_denoiser(MIXTURE.at(EDMSDE()))(X, torch.ones(3)),
            ShapeError, "sigma must be a number",
        ),
        (lambda: interop.to_denoiser(lambda x, t: -x), InvalidValueError, "has no SDE in its"),
        (
            lambda: interop.to_denoiser(MIXTURE.at(EDMSDE()))([[1.0, 1.0]], 1.0),
            InvalidTypeError, "x must be a tensor",
        ),
        (lambda: from_network(Net(), VPSDE(), "eps", transform=3), InvalidTypeError, "transform"),
        (lambda: interop.from_edm(EDMNet(), VPSDE()), InvalidValueError, "takes states x0 \\+"),
        (lambda: interop.from_k_diffusion(Net(), FlowSDE()), InvalidValueError, "Rescheduled"),
        (lambda: interop.from_edm(EDMNet(sigma_data=0)), InvalidValueError, "sigma_data"),
        (lambda: interop.from_edm(EDMNet(sigma_data="a")), InvalidTypeError, "sigma_data"),
        (lambda: interop.from_edm(EDMNet(label_dim=-1)), InvalidValueError, "label_dim"),
        (lambda: interop.from_k_diffusion(Sigmas("a")), InvalidTypeError, "sigma_min"),
        (lambda: interop.from_k_diffusion(Sigmas([1.0, 2.0])), ShapeError, "sigma_min"),
    ],
)  # fmt: skip
def test_a_wrong_argument_is_a_clear_error(call, error, message):
    with pytest.raises(error, match=message):
        call()


@pytest.mark.parametrize(
    ("call", "module"),
    [(interop.to_azula, "azula.denoise"), (interop.to_diffusers, "diffusers")],
)
def test_a_library_that_is_missing_is_named(call, module, monkeypatch):
    monkeypatch.setitem(__import__("sys").modules, module, None)
    with pytest.raises(MissingExtraError, match=module.partition(".")[0]):
        call(MIXTURE.at(VPSDE()))


# --- EDM ------------------------------------------------------------------------------------------


class EDMNet(nn.Module):
    """The preconditioning of Karras et al. (2022), table 1, with the names of their attributes."""

    img_channels, img_resolution = 3, 4

    def __init__(self, label_dim=0, sigma_data=0.5):
        super().__init__()
        self.sigma_data = sigma_data
        self.label_dim = label_dim
        with torch.random.fork_rng(devices=[]):
            torch.default_generator.manual_seed(0)
            self.net = nn.Conv2d(3, 3, 3, padding=1).double()
            self.label = nn.Linear(max(label_dim, 1), 3).double()

    def forward(self, x, sigma, class_labels=None):
        sigma = sigma.reshape(-1, 1, 1, 1)
        total = (sigma**2 + self.sigma_data**2).sqrt()
        out = self.net(x / total).tanh()
        if class_labels is not None:
            out = out + self.label(class_labels)[:, :, None, None]
        return self.sigma_data**2 / total**2 * x + sigma * self.sigma_data / total * out


def test_heun_on_a_network_of_edm_is_algorithm_1_of_its_paper():
    net, i = EDMNet(), torch.arange(10, dtype=torch.float64)
    rho = (80 ** (1 / 7) + i / 9 * (0.002 ** (1 / 7) - 80 ** (1 / 7))) ** 7
    z = torch.randn(2, 3, 4, 4, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    x = z * rho[0]
    with torch.no_grad():
        for now, then in itertools.pairwise([*rho, torch.zeros(())]):
            d = (x - net(x, now)) / now
            end = x + (then - now) * d
            if then > 0:
                end = x + (then - now) / 2 * (d + (end - net(end, then)) / then)
            x = end
    score = interop.from_edm(net)
    ours = sample(score, sampler="heun", x=z * rho[0], times=rho, seed=0)
    assert_close(ours, x, rtol=1e-8, atol=1e-8)


GRID = (80 ** (1 / 7) + torch.linspace(0, 1, 10).double() * (0.01 ** (1 / 7) - 80 ** (1 / 7))) ** 7
Z = torch.randn(2, 3, 4, 4, generator=torch.Generator().manual_seed(0), dtype=torch.float64)


def heun(net, x, now, then):
    """Return a step of their algorithm 1, of second order where `then` is not 0."""
    d = (x - net(x, now)) / now
    end = x + (then - now) * d
    return end if then == 0 else x + (then - now) / 2 * (d + (end - net(end, then)) / then)


def test_churn_on_a_network_of_edm_is_algorithm_2_of_its_paper():
    """Their run has one step more, that to 0, over which they count the churn too."""
    net, noise, x = EDMNet(), Noise.of(0, 2), Z * GRID[0]
    gamma = min(4.0 / 9, math.sqrt(2) - 1)
    with torch.no_grad():
        for now, then in itertools.pairwise([*GRID, torch.zeros(()).double()]):
            raised = now * (1 + gamma) if 0.05 <= now <= 50 else now
            x = x + (raised**2 - now**2).sqrt() * 1.003 * noise.normal(x, now)
            x = heun(net, x, raised, then)
    method = Heun(churn=4.0, sigma_min=0.05, sigma_max=50.0, s_noise=1.003)
    ours = sample(interop.from_edm(net), sampler=method, x=Z * GRID[0], times=GRID, seed=0)
    assert_close(ours, x, rtol=1e-7, atol=1e-7)


def test_restarts_on_a_network_of_edm_are_algorithm_2_of_their_paper():
    """Xu et al. (2023): at the lower end of an interval noise is added back, K times."""
    net, noise, x = EDMNet(), Noise.of(0, 2), Z * GRID[0]
    low, high, steps = GRID[6], 3.0, 4
    roots = torch.linspace(0, 1, steps + 1).double()
    inner = (high ** (1 / 7) + roots * (low ** (1 / 7) - high ** (1 / 7))) ** 7
    with torch.no_grad():
        for now, then in itertools.pairwise([*GRID, torch.zeros(()).double()]):
            x = heun(net, x, now, then)
            for j in range(2 if then == low else 0):
                x = x + (high**2 - low**2).sqrt() * noise.fork(1).fork(j).normal(x, low)
                for a, b in itertools.pairwise(inner):
                    x = heun(net, x, a, b)
    method = Restart(intervals=(RestartInterval(float(low), high, 2, steps),))
    ours = sample(interop.from_edm(net), sampler=method, x=Z * GRID[0], times=GRID, seed=0)
    assert_close(ours, x, rtol=1e-7, atol=1e-7)


def test_er_sde_on_a_network_of_edm_is_the_published_update():
    """Cui et al. (2023), order 2, with the integral of 1 / phi by midpoints."""
    net, noise, x = EDMNet(), Noise.of(0, 2), Z * GRID[0]

    def phi(s):
        return s * ((s**0.3).exp() + 10)

    before = None
    with torch.no_grad():
        for i, (now, then) in enumerate(itertools.pairwise(GRID)):
            denoised, r = net(x, now), phi(then) / phi(now)
            step = r * x + (1 - r) * denoised
            if i:
                at = then + (torch.arange(4000).double() + 0.5) * (now - then) / 4000
                area = ((now - then) / 4000 / phi(at)).sum()
                slope = (denoised - before) / (now - GRID[i - 1])
                step = step + (then - now + area * phi(then)) * slope
            spread = (then**2 - now**2 * r**2).clamp(min=0).sqrt()
            x, before = step + spread * noise.normal(x, now), denoised
        x = net(x, GRID[-1])
    ours = sample(interop.from_edm(net), sampler=ERSDE(order=2), x=Z * GRID[0], times=GRID, seed=0)
    assert_close(ours, x, rtol=1e-5, atol=1e-5)


def test_facts_and_labels_are_read_from_a_network_of_edm():
    facts = interop.from_edm(EDMNet(label_dim=5)).facts
    assert (facts.sde, facts.event_shape, facts.conditions) == (
        EDMSDE(), (3, 4, 4), {"label": Classes(5)},
    )  # fmt: skip
    assert float(facts.moments.var) == 0.25
    for std in (2, np.float32(2), torch.tensor(2.0)):
        assert interop.from_edm(EDMNet(sigma_data=std)).facts.moments.var == 4
    assert interop.from_edm(EDMNet(label_dim=np.int64(5))).facts.conditions == {"label": Classes(5)}
    assert interop.from_edm(EDMNet()).facts.conditions == {}
    assert interop.from_edm(EDMNet(), event_shape=(3, 8, 8)).facts.event_shape == (3, 8, 8)
    net, x = EDMNet(label_dim=5), torch.ones(2, 3, 4, 4, dtype=torch.float64)
    found = interop.from_edm(net)(x, 2.0, {"label": torch.tensor([3, -1])})
    rows = torch.zeros(2, 5, dtype=torch.float64)
    rows[0, 3] = 1
    expected = (net(x, torch.tensor(2.0, dtype=torch.float64), rows) - x) / 4
    assert_close(found, expected)


def test_facts_of_a_network_of_edm_serve_fast_as_the_same_moments_given_by_hand():
    net = EDMNet()
    bare = from_network(net, EDMSDE(), "x0", "sigma", event_shape=(3, 4, 4))
    few = dict(sampler="fast", steps=8, pilot=False, n=4, seed=0, dtype=torch.float64)
    ours = sample(interop.from_edm(net), **few)
    assert_close(ours, sample(bare, moments=Moments(0.0, var=0.25), **few), rtol=0, atol=0)
    assert not torch.allclose(ours, sample(bare, **few))


# --- velocities -----------------------------------------------------------------------------------


def test_eulers_method_on_a_velocity_goes_from_noise_to_data():
    net, z = Net().double(), X
    x, grid = z, torch.linspace(0.001, 1.0, 21, dtype=torch.float64)
    with torch.no_grad():
        for now, then in itertools.pairwise(grid):
            x = x + (then - now) * net(x, now.expand(6))
    score = interop.from_velocity(net, event_shape=(2,))
    ours = sample(score, sampler="euler", x=z, times=1 - grid[:-1], seed=0)
    assert_close(ours, x, rtol=1e-9, atol=1e-9)


def test_a_velocity_of_the_mixture_is_its_score():
    sde = FlowSDE()
    flow = truths(sde)["flow"]
    score = interop.from_velocity(lambda x, tau: -flow(x, 1 - tau))
    t = torch.linspace(0.05, 0.95, 6, dtype=torch.float64)
    assert_close(score(X, t), MIXTURE.at(sde)(X, t), rtol=1e-9, atol=1e-9)


# --- denoisers ------------------------------------------------------------------------------------


@pytest.mark.parametrize("sde", SDES[:-1], ids=lambda sde: type(sde).__name__)
def test_a_score_becomes_a_denoiser_and_a_denoiser_a_score(sde):
    score = MIXTURE.at(sde)
    denoiser = interop.to_denoiser(score)
    back = interop.from_k_diffusion(denoiser, event_shape=(2,))
    sigma = torch.linspace(0.05, 5.0, 6, dtype=torch.float64)
    exact = MIXTURE.at(EDMSDE())(X, sigma)
    assert_close(denoiser(X, sigma), X + sigma[:, None] ** 2 * exact, rtol=1e-7, atol=1e-7)
    assert_close(denoiser(X, sigma[:, None]), denoiser(X, sigma))
    assert_close(denoiser(X, 0.7), denoiser(X, torch.full((6,), 0.7)), rtol=1e-6, atol=1e-6)
    assert_close(back(X, sigma), exact, rtol=1e-6, atol=1e-6)
    low, high = (
        (-sde.log_snr(torch.tensor(t, dtype=torch.float64)) / 2).exp() for t in (sde.eps, sde.T)
    )
    assert back.sde.same_process(EDMSDE(eps=float(low), T=float(high)))
    again = interop.from_deepinv(denoiser, sigma_min=0.04, sigma_max=6.0)
    assert_close(again(X, sigma), back(X, sigma))


BYTES = Range(0, 255, levels=256)


def in_bytes(sde):
    """Return a score in [-1, 1] whose user's numbers are bytes, and the law of these bytes."""
    mean = torch.tensor([0.3, -0.2], dtype=torch.float64)
    exact = targets.Gaussian(mean, var=0.2).at(sde)
    eps = lambda x, t: -sde.at(t, x)[1] * exact(x, t)  # noqa: E731
    given = dict(event_shape=(2,), transform=BYTES, moments=Moments(mean, var=0.2))
    score = from_network(eps, sde, "eps", **given)
    return score, targets.Gaussian(BYTES.inverse(mean), var=0.2 * 127.5**2)


@pytest.mark.parametrize("sde", SDES[:-1], ids=lambda sde: type(sde).__name__)
def test_a_denoiser_in_units_is_that_of_the_users_numbers(sde):
    score, law = in_bytes(sde)
    denoiser, y = interop.to_denoiser(score, units=True), BYTES.inverse(X)
    inner = interop.to_denoiser(score)
    for name in ("sigma_min", "sigma_max"):
        assert getattr(denoiser, name) == pytest.approx(127.5 * getattr(inner, name), rel=1e-6)
    sigma = torch.linspace(20.0, 900.0, 6, dtype=torch.float64)
    exact = law.denoise(y, EDMSDE(T=1e6, eps=0.0), sigma)
    assert_close(denoiser(y, sigma), exact, rtol=1e-9, atol=1e-7)
    moments = scoresde.facts(denoiser._rescheduled).moments
    assert_close(moments.mean, law.means[0])
    assert float(moments.var) == pytest.approx(0.2 * 127.5**2)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: MIXTURE.at(VPSDE()), "units of this score are not known"),
        (
            lambda: from_network(
                Net(), VPSDE(), "eps", event_shape=(2,),
                transform=Standardize((0.0, 1.0), (1.0, 2.0)),
            ), "is not a shift and one common scale",
        ),
        (
            lambda: scoresde.Latent(
                from_network(Net(), VPSDE(), "eps", event_shape=(2,)), Net(), torch.nn.Identity()
            ), "this score takes codes, not samples",
        ),
    ],
)  # fmt: skip
def test_units_that_no_denoiser_can_have_are_refused(make, message):
    with pytest.raises(InvalidValueError, match=message):
        interop.to_denoiser(make(), units=True)


def test_a_denoiser_moves_and_changes_mode_with_its_networks():
    score = from_network(Net(), VPSDE(), "eps", event_shape=(2,))
    denoiser = interop.to_denoiser(score).eval()
    assert not score.net.training
    assert {id(p) for p in denoiser.parameters()} == {id(p) for p in score.parameters()}
    # it is no score, and does not pass for one
    assert scoresde.facts(denoiser) == scoresde.Facts()


def test_a_condition_goes_through_a_denoiser_by_name():
    score = from_network(
        Net(classes=3), VPSDE(), "eps", event_shape=(2,), conditions={"label": Classes(3)}
    )
    denoiser, label = interop.to_denoiser(score), torch.tensor([0, 1, 2, 0, 1, 2])
    found = denoiser(X, 1.0, label=label)
    assert not torch.allclose(found, denoiser(X, 1.0, label=label.roll(1)))
    back = interop.from_k_diffusion(denoiser)
    assert_close(back(X, 1.0, {"label": label}), found - X, rtol=1e-6, atol=1e-6)


def test_a_schedule_is_a_process():
    sde = interop.Scheduled(lambda t: (1 - t, t), T=0.999)
    assert sde.same_process(FlowSDE())
    t = torch.linspace(0.1, 0.9, 5, dtype=torch.float64)
    assert_close(sde.time(sde.log_snr(t)), t)
    for ours, theirs in zip(sde.coefficients(t), FlowSDE().coefficients(t), strict=True):
        assert_close(ours, theirs)
