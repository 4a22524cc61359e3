"""Test guidance, which maps scores to scores, with every sampler, SDE and loss."""

import doctest
import inspect
import math
from dataclasses import replace

import pytest
import torch
from conditional import Linear
from hypothesis import given
from hypothesis import strategies as st
from methods import can_run, coarse, in_turn
from oracle import affine
from strategies import SDES, Exact, generators, log_floats, sdes, times_of
from torch import nn

import scoresde
from scoresde import SAMPLERS, Classes, Facts, Noise, Rescheduled, ScoreModel, Wrapped, facts
from scoresde.errors import (
    InvalidTypeError,
    InvalidValueError,
    NonFiniteError,
    ShapeError,
    UnknownNameError,
)
from scoresde.guidance import (
    GUIDANCE,
    autoguidance,
    classifier,
    classifier_free,
    compose,
    posterior,
)
from scoresde.likelihood import elbo
from scoresde.nn import MLP
from scoresde.objectives import LOSSES

VP = scoresde.VPSDE()
Y = torch.tensor([[0.7]], dtype=torch.float64)
FIRST = scoresde.guidance.Linear(torch.tensor([[1.0, 0.0]]), std=0.5)


def linear(sde=VP, seed=0, **sizes):
    return Linear.drawn(sde, torch.Generator().manual_seed(seed), **sizes)


def guided(name, score, scale=2.0):
    """Return a guidance of the table on an exact conditional score."""
    if name == "autoguidance":
        return autoguidance(score, linear(score.sde, seed=1), scale)
    if name == "classifier":
        return classifier(score, Declared(score), scale)
    if name == "compose":
        return compose(score, {"y": torch.cat([Y, -Y])}, score.moments(2))
    if name == "posterior":
        return posterior(score, FIRST, iterations=1)
    return GUIDANCE[name](score, scale)


class Declared:
    """log p(y | x_t), whose condition has a name of its own."""

    def __init__(self, score):
        self.exact = score

    @property
    def facts(self):
        return Facts(conditions={"z": scoresde.Field((1,))}, passes=1)

    def __call__(self, x, t, condition):
        return self.exact.log_likelihood(x, t, {"y": condition["z"]})


def conditions(name, n):
    """What a score of `guided` is sampled under."""
    y = Y.expand(n, 1)
    others = {"classifier": {"y": y, "z": -y}, "posterior": {"y": y, "measurement": -y}}
    return None if name == "compose" else others.get(name, {"y": y})


def state(sde, seed=0, n=3, d=2):
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(n, d, generator=generator, dtype=torch.float64)


# The line through two scores


@pytest.mark.law(54)
@given(sdes(continuous=True), generators(), st.floats(-3, 5), st.data())
def test_guidance_is_affine_in_the_scale_between_the_two_scores(sde, generator, scale, data):
    score = Linear.drawn(sde, generator)
    x = sde.prior_std * state(sde)
    t = data.draw(times_of(sde)).expand(3)
    condition = {"y": Y.expand(3, 1)}
    free, under = score(x, t), score(x, t, condition)
    for made, weak in (
        (lambda w: classifier_free(score, w), free),
        (lambda w: autoguidance(score, lambda x, t, condition=None: score(x, t), w), free),
    ):
        assert torch.equal(made(0)(x, t, condition), weak)
        assert torch.equal(made(1)(x, t, condition), under)
        line = weak + scale * (under - weak)
        torch.testing.assert_close(made(scale)(x, t, condition), line, rtol=1e-12, atol=1e-12)


def network():
    """Return a small model with classes whose output depends on all that it is given."""
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(0)
        model = ScoreModel(MLP(2, hidden=(16, 16), num_classes=3), VP, (2,))
        for p in model.parameters():
            nn.init.normal_(p, std=0.3)
    return model


@pytest.mark.law(54)
def test_at_0_at_1_and_outside_of_the_interval_a_network_is_itself_bit_for_bit():
    model, x, t = network(), torch.randn(5, 2, generator=torch.Generator().manual_seed(0)), 0.5
    condition = {"label": torch.tensor([0, 1, 2, -1, 0])}
    t = torch.full((5,), t)
    under, free = model(x, t, condition), model(x, t)
    assert torch.equal(classifier_free(model, 1.0)(x, t, condition), under)
    assert torch.equal(classifier_free(model, 0.0)(x, t, condition), free)
    below = classifier_free(model, 3.0, interval=(1e-3, 1e-2))
    assert torch.equal(below(x, t, condition), under)
    every = classifier_free(model, 3.0, interval=(0, math.inf))(x, t, condition)
    assert torch.equal(every, classifier_free(model, 3.0)(x, t, condition))
    assert not torch.allclose(every[:3], under[:3], atol=1e-3)
    assert torch.allclose(every[3], free[3], atol=1e-5)  # its label is missing


@pytest.mark.law(68)
@pytest.mark.parametrize(
    ("scale", "interval", "given", "free"),
    [
        (2, None, 1, 1),
        (1, None, 1, 0),
        (0, None, 0, 1),
        (-1, None, 1, 1),
        (2, (0.1, 0.2), 1, 0),
        (0, (0.1, 0.2), 1, 0),
        (2, (0.1, 10.0), 1, 1),
        (0, (0.1, 10.0), 0, 1),
        (1, (0.1, 10.0), 1, 0),
    ],
)
def test_only_the_branches_that_are_needed_are_evaluated_and_counted(scale, interval, given, free):
    score = linear()
    rsde = VP.reverse(
        classifier_free(score, scale, interval=interval), condition=scoresde.Condition({"y": Y})
    )
    rsde.score(state(VP, n=1), 0.5)
    assert 0.2 < float((-VP.log_snr(torch.tensor(0.5)) / 2).exp()) < 10
    assert (score.given, score.free) == (given, free)
    assert (rsde.nfe, rsde.passes) == (1, given + free)


def test_passes_of_nested_guidance_add_up():
    score = linear()
    inner = classifier_free(score, 2.0, interval=(0.1, 1.0))
    for weaker in (lambda x, t, condition=None: score(x, t), classifier_free(score, 0.5)):
        score.given = score.free = 0
        outer = autoguidance(inner, weaker, 2.0)
        run = scoresde.Run.of(outer, sampler="heun", n=2, steps=20, seed=0, condition={"y": Y})
        found = run.draw()
        assert score.given >= found.nfe
        assert score.free > found.nfe
        assert found.passes == score.given + score.free


# Intervals


def test_an_interval_holds_its_upper_end_and_not_its_lower_one():
    score = linear()
    times = torch.tensor([0.3, 0.301, 0.4, 0.5, 0.501])
    low, _, _, high, _ = (-VP.log_snr(times.double()) / 2).exp().tolist()
    for dtype in (torch.float32, torch.float64):
        x, t = state(VP, n=5).to(dtype), times.to(dtype)
        condition = {"y": Y.expand(5, 1).to(dtype)}
        found = classifier_free(score, 3.0, interval=(low, high))(x, t, condition)
        always, under = classifier_free(score, 3.0)(x, t, condition), score(x, t, condition)
        outside = [0, 4]
        assert torch.equal(found[outside], under[outside])
        assert torch.equal(found[1:4], always[1:4])
        assert (always != under).all()


@pytest.mark.slow
@given(generators(), st.data())
def test_another_schedule_does_not_move_an_interval(generator, data):
    score = Linear.drawn(scoresde.EDMSDE(), generator)
    low = data.draw(log_floats(0.01, 1))
    interval = (low, low * data.draw(log_floats(1.5, 50)))
    other = data.draw(st.sampled_from([scoresde.FlowSDE(T=0.98, eps=0.01), VP, scoresde.VESDE()]))
    other = replace(other, T=0.8 * other.T)
    inside = Rescheduled(classifier_free(score, 2.5, interval=interval), other)
    outside = classifier_free(Rescheduled(score, other), 2.5, interval=interval)
    n = 40
    t = torch.linspace(other.eps, other.T, n, dtype=torch.float64)
    condition = {"y": Y.expand(n, 1)}
    x = state(other, n=n)
    found = inside(x, t, condition)
    torch.testing.assert_close(found, outside(x, t, condition), rtol=1e-7, atol=1e-7)
    passes = [scoresde.sde.passes_of(inside, (-other.log_snr(time) / 2).exp()) for time in t]
    alone = classifier_free(score, 2.5)
    changed = [p == 2 for p in passes]
    assert torch.equal(
        torch.tensor(changed), (found != Rescheduled(score, other)(x, t, condition)).any(1)
    )
    torch.testing.assert_close(
        found[changed], Rescheduled(alone, other)(x, t, condition)[changed], rtol=1e-7, atol=1e-7
    )


def test_a_sample_is_guided_by_its_own_time():
    score = linear()
    guided = classifier_free(score, 3.0, interval=(0.2, 1.0))
    t = torch.linspace(VP.eps, VP.T, 9, dtype=torch.float64)
    x, condition = state(VP, n=9), {"y": Y.expand(9, 1)}
    whole = guided(x, t, condition)
    for i in range(9):
        row = slice(i, i + 1)
        alone = guided(x[row], t[row], {"y": Y})
        torch.testing.assert_close(whole[row], alone, rtol=1e-12, atol=1e-12)


# With everything else


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore:the samples are .* times as large")  # of two steps
@pytest.mark.parametrize(("name", "sampler"), in_turn(GUIDANCE, SAMPLERS, len(SAMPLERS) // 3))
def test_every_guidance_works_with_every_sampler(name, sampler):
    """Finite, counted, keeping the facts, and each sample by itself; the SDEs take turns."""
    pool = [key for key, sde in SDES.items() if can_run(sampler, sde)]
    sde = SDES[pool[(7 * list(SAMPLERS).index(sampler) + list(GUIDANCE).index(name)) % len(pool)]]
    score = linear(sde)
    made = guided(name, score)
    own, known = score.facts, facts(made)
    assert (known.sde, known.event_shape, known.steps) == (sde, own.event_shape, own.steps)
    assert torch.equal(known.moments.cov, own.moments.cov)
    options = dict(
        sampler=coarse(sampler), steps=2, seed=3, dtype=torch.float64, condition=conditions(name, 1)
    )
    if SAMPLERS[sampler].adaptive:
        options.pop("steps")
    found = scoresde.Run.of(made, n=3, **options).draw()
    assert found.x.shape == (3, 2)
    assert found.x.isfinite().all()
    weaker = made.others[0] if name == "autoguidance" else score
    calls = score.given + score.free + (weaker.given if weaker is not score else 0)
    calls += found.nfe if name == "classifier" else 0
    calls *= 3 if name == "posterior" else 1  # a pass back counts as two
    assert found.passes == calls
    if not SAMPLERS[sampler].coupled:
        alone = scoresde.sample(made, n=1, first=2, **options)
        tolerance = 1e-2 if SAMPLERS[sampler].adaptive else 1e-9
        torch.testing.assert_close(found.x[2:], alone, rtol=tolerance, atol=tolerance)


@pytest.mark.slow
@pytest.mark.parametrize("loss", LOSSES)
@pytest.mark.parametrize("name", [*GUIDANCE, "jacobian"])
def test_every_loss_of_a_guided_network_has_a_finite_gradient(name, loss):
    model, other = network(), network()
    made = {
        "classifier_free": lambda: classifier_free(model, 2.0),
        "autoguidance": lambda: autoguidance(model, other, 2.0),
        "classifier": lambda: classifier(
            model, lambda x, t, c: -model(x, t, c).square().sum(1), 0.1
        ),
        "compose": lambda: compose(model, {"label": [0, 1]}, [scoresde.Moments(0.0, var=1.0)] * 3),
        "posterior": lambda: posterior(model, FIRST, iterations=1),
        "jacobian": lambda: compose(Smooth(model), {"label": [0, 1]}, "jacobian"),
    }.get(name, lambda: GUIDANCE[name](model, 2.0))()
    x = torch.randn(4, 2, generator=torch.Generator().manual_seed(0))
    label = {"label": torch.tensor([0, 1, 2, 0])}
    condition = None if name in ("compose", "jacobian") else label
    if name == "posterior":
        condition = label | {"measurement": torch.ones(4, 1)}
    value = LOSSES[loss](made, VP, x, t=0.5, noise=Noise.of(0, 4), condition=condition)
    assert value.shape == (4,)
    value.sum().backward()
    gradients = [p.grad for p in model.parameters() if p.grad is not None]
    assert gradients
    assert all(gradient.isfinite().all() for gradient in gradients)
    assert any((gradient != 0).any() for gradient in gradients)


class Smooth(Wrapped):
    """Define a network near the score of a normal law, whose Jacobian is that of a density."""

    def __call__(self, x, t, condition=None):
        return -x + 0.01 * torch.tanh(self.ask(self.score, x, t, condition))


@pytest.mark.law(52)
@given(sdes(continuous=True), generators(), st.data())
def test_a_classifier_with_the_true_likelihood_is_bayes_rule(sde, generator, data):
    """Whether or not it declares the condition as its own."""
    score = Linear.drawn(sde, generator, d=3, k=2)
    t = data.draw(times_of(sde)).expand(4)
    ratio = float((-sde.log_snr(t[0]) / 2).exp())
    x = float(sde.alpha(t[0])) * (state(sde, n=4, d=3) * (1 + ratio) + score.mean)
    condition = {"y": torch.tensor([[0.3, -1.0]]).double().expand(4, 2)}

    class Own:
        facts = Facts(conditions={"y": scoresde.Field((2,))})

        def __call__(self, x, t, condition):
            return score.log_likelihood(x, t, condition)

    exact = score(x, t, condition)
    for log_prob in (score.log_likelihood, Own()):
        made = classifier(lambda x, t, condition=None: score(x, t), log_prob, 1.0)
        with torch.no_grad():
            found = made(x, t, condition)
        torch.testing.assert_close(found, exact, rtol=1e-6, atol=1e-6 * float(exact.abs().max()))


def test_a_condition_belongs_to_the_outermost_that_declares_it():
    seen = []

    class Both:
        facts = Facts(sde=VP, event_shape=(2,), conditions={"label": Classes(3), "z": Classes(2)})

        def __call__(self, x, t, condition=None):
            seen.append(sorted(condition or ()))
            return -x

    class Own:
        facts = Facts(conditions={"label": Classes(3)})

        def __call__(self, x, t, condition):
            seen.append(sorted(condition))
            return -x.square().sum(1)

    made = classifier(Both(), Own(), 1.0)
    assert facts(made).conditions == {"label": Classes(3), "z": Classes(2)}
    arguments = dict(sampler="ddim", steps=1, denoise=False, seed=0)
    scoresde.sample(made, condition={"label": 1, "z": 0}, **arguments)
    scoresde.sample(made, condition={"z": 0}, **arguments)  # without a label there is no guidance
    assert seen == [["z"], ["label"], ["z"]]
    with pytest.raises(InvalidValueError, match="labels from 0 to 2"):
        scoresde.sample(made, condition={"label": 3}, **arguments)


@pytest.mark.parametrize(
    ("kind", "rows", "log_prob"),
    [
        (
            Classes(3),
            torch.tensor([1, -1, 2]),
            lambda x, t, c: x.log_softmax(1).gather(1, c["z"][:, None])[:, 0],
        ),
        (
            scoresde.Field((3,)),
            torch.tensor([[1.0, 2.0, 3.0], [math.nan] * 3, [0.0, 1.0, 0.0]]),
            lambda x, t, c: -(x - c["z"]).square().sum(1),
        ),
    ],
)
def test_a_sample_whose_condition_is_missing_is_not_guided_by_a_classifier(kind, rows, log_prob):
    class Own:
        facts = Facts(conditions={"z": kind})

        def __call__(self, x, t, condition):
            return log_prob(x, t, condition)

    score = Exact(VP, 0.0, 1.0)
    x, t = torch.randn(3, 3, generator=torch.Generator().manual_seed(0)), torch.full((3,), 0.5)
    pull = classifier(score, Own(), 2.0)(x, t, {"z": rows}) - score(x, t)
    assert torch.equal(pull[1], torch.zeros(3))
    known = [0, 2]
    alone = classifier(score, Own(), 2.0)(x[known], t[known], {"z": rows[known]})
    torch.testing.assert_close(pull[known], alone - score(x[known], t[known]))
    assert (pull[known].abs() > 0.01).all()


def narrow(x, t, condition=None):
    return -x[:, :1]


@pytest.mark.parametrize(
    "make",
    [
        lambda s, bad: autoguidance(s, bad, 2.0),
        lambda s, bad: autoguidance(bad, s, 2.0),
        lambda s, bad: classifier_free(bad, 2.0),
        lambda s, bad: classifier(bad, lambda x, t: -x.square().sum(1), 1.0),
        lambda s, bad: compose(s, {"y": torch.cat([Y, -Y])}, s.moments(2), prior=bad),
        lambda s, bad: compose(s, {"y": torch.cat([Y, -Y])}, "jacobian", prior=bad),
    ],
)
def test_no_part_of_a_guided_score_is_broadcast(make):
    made = make(linear(), narrow)
    with pytest.raises(ShapeError, match="the shape of its input"):
        made(torch.ones(3, 2).double(), torch.full((3,), 0.5).double(), {"y": Y.expand(3, 1)})


def test_the_two_scores_may_be_of_several_precisions():
    x, t = torch.ones(3, 2), torch.tensor(0.5)
    strong, weak = (lambda x, t: -x), (lambda x, t: -2 * x.double())
    assert torch.equal(autoguidance(strong, weak, 2.0)(x, t), torch.zeros(3, 2))
    assert torch.equal(autoguidance(weak, strong, 2.0)(x, t), torch.full((3, 2), -3.0).double())


def test_the_network_of_a_classifier_is_in_evaluation_mode_and_restored():
    class Noisy(nn.Module):
        def __init__(self):
            super().__init__()
            self.drop, self.modes = nn.Dropout(0.5), []

        def forward(self, x, t):
            self.modes.append(self.training)
            return -self.drop(x).square().sum(1)

    net = Noisy().train()
    made = classifier(Exact(VP, 0.0, 1.0), net, 1.0)
    scoresde.sample(made, VP, "ddim", shape=(2,), steps=2, seed=0)
    assert net.modes == [False] * 3
    assert net.training


# The law of guided samples


def flow_variance(scale, v0, v1):
    """That of the guided flow from N(., v0) to N(., v1) without noise left."""
    return v1**scale * v0 ** (1 - scale)


@pytest.mark.slow
def test_a_guided_law_is_no_tempered_posterior():
    """N(0, 1) against N(1, .25) at 3: the flow and the SDE differ, and neither is the product."""
    sde = scoresde.VESDE(1e-3, 500.0)
    zero, one = Exact(sde, 0.0, 1.0), Exact(sde, 1.0, 0.25)
    made = autoguidance(one, zero, 3.0)

    def moments(sampler, steps):
        rsde = sde.reverse(made)
        times = sde.times(steps)

        def end(x, noise):
            for state in sampler.trajectory(rsde, x, times, noise):
                x = state.x
            return x

        return affine(end)(torch.zeros(1).double(), torch.tensor([sde.prior_std**2]).double())

    mean, var = moments(scoresde.samplers.Heun(), 400)
    assert float(var) == pytest.approx(flow_variance(3, 1.0, 0.25), rel=1e-2)
    assert float(mean) == pytest.approx(1.5, rel=1e-2)
    # with q = 1 / (.25 + ratio²): .25^6 times the integral of (1 + .75 q)^4 over [0, 4]
    _, var = moments(scoresde.samplers.Ancestral(), 400)
    assert float(var) == pytest.approx(0.25**6 * (4**5 - 1) / 3.75, rel=0.1)
    product = 1 / (3 / 0.25 - 2)
    assert float(var) < 0.8 * product


DENSITIES = {
    "log_prob": lambda score, **c: scoresde.log_prob(score, VP, torch.zeros(1, 2).double(), **c),
    "sample_with_log_prob": lambda score, **c: scoresde.likelihood.sample_with_log_prob(
        score, VP, 1, seed=0, dtype=torch.float64, **c
    ),
    "elbo": lambda score, **c: elbo(score, VP, torch.zeros(1, 2).double(), **c),
}


@pytest.mark.slow
@pytest.mark.parametrize("door", DENSITIES)
@pytest.mark.parametrize("name", ["classifier_free", "autoguidance", "classifier", "compose"])
def test_the_density_of_a_guided_score_is_refused_and_its_flow_is_not(name, door):
    made = guided(name, linear())
    condition = conditions(name, 1)
    for score in (made, Wrapped(made), Rescheduled(made, scoresde.VPSDE(T=0.9))):
        with pytest.raises(InvalidValueError, match="not the gradient of a log-density"):
            DENSITIES[door](score, condition=condition)
    if name != "compose":  # where the scale is 1 it is the score of a law
        DENSITIES[door](guided(name, linear(), scale=1.0), condition=condition)
    x = torch.ones(1, 2).double()
    latents = scoresde.encode(made, VP, x, condition=condition)
    back = scoresde.decode(made, VP, latents, condition=condition)
    torch.testing.assert_close(back, x, rtol=1e-3, atol=1e-3)


def test_at_0_a_guided_score_has_the_density_of_the_weak_one():
    score, x = linear(), torch.zeros(1, 2).double()
    mixed = classifier_free(score, 2.0)
    scoresde.log_prob(autoguidance(mixed, score, 0.0), VP, x, condition={"y": Y})
    between = classifier_free(score, 0.0, interval=(0.1, 1.0))  # conditional outside of it
    for made in (autoguidance(score, mixed, 0.0), between):
        with pytest.raises(InvalidValueError, match="not the gradient of a log-density"):
            scoresde.log_prob(made, VP, x, condition={"y": Y})


# Doors


@pytest.mark.slow
@pytest.mark.parametrize("name", GUIDANCE)
def test_the_example_of_a_guidance_runs(name):
    module = inspect.getmodule(GUIDANCE[name])
    finder = doctest.DocTestFinder(recurse=False)
    (found,) = finder.find(GUIDANCE[name], name, module, globs=vars(module).copy())
    assert found.examples
    assert doctest.DocTestRunner(optionflags=doctest.NORMALIZE_WHITESPACE).run(found).failed == 0


class Bare:
    def __call__(self, x, t, condition=None):
        return -x


@pytest.mark.parametrize(
    ("make", "error", "message"),
    [
        (lambda: classifier_free(linear(), math.nan), InvalidValueError, "scale must be finite"),
        (lambda: classifier_free(linear(), math.inf), InvalidValueError, "scale must be finite"),
        (lambda: classifier_free(linear(), "2"), InvalidTypeError, "scale"),
        (lambda: classifier_free("mnist", 2.0), InvalidTypeError, "score"),
        (lambda: classifier(linear(), Bare(), -math.inf), InvalidValueError, "scale must be"),
        (lambda: classifier(linear(), 3, 1.0), InvalidTypeError, "log_prob"),
        (lambda: autoguidance(linear(), None, 1.0), InvalidTypeError, "weaker"),
        (lambda: classifier_free(linear(), 2.0, interval=(1.0, 0.5)), InvalidValueError, "low < h"),
        (lambda: classifier_free(linear(), 2.0, interval=(-1.0, 0.5)), InvalidValueError, "0 <= l"),
        (
            lambda: classifier_free(linear(), 2.0, interval=(math.nan, 1.0)),
            InvalidValueError,
            "low < high",
        ),
        (lambda: classifier_free(linear(), 2.0, interval=1.0), InvalidTypeError, "interval"),
        (
            lambda: classifier_free(Bare(), 2.0, interval=(0.1, 1.0)),
            InvalidValueError,
            "this score has no SDE in its facts",
        ),
        (
            lambda: classifier_free(scoresde.targets.TwoMoons().at(VP), 2.0),
            InvalidValueError,
            "takes no condition",
        ),
        (
            lambda: autoguidance(linear(), linear(scoresde.VESDE()), 2.0),
            InvalidValueError,
            "belongs to",
        ),
        (lambda: autoguidance(linear(), linear(d=3), 2.0), ShapeError, "events"),
        (
            lambda: classifier(linear(), linear(scoresde.VESDE()), 2.0),
            InvalidValueError,
            "belongs to",
        ),
        (lambda: classifier(linear(), linear(d=3), 2.0), ShapeError, "events"),
    ],
)
def test_impossible_guidance_is_refused_when_it_is_made(make, error, message):
    with pytest.raises(error, match=message):
        make()


def test_guidance_without_a_condition_is_refused_before_the_first_evaluation():
    score = linear()
    for scale, interval in ((2.0, None), (1.0, None), (2.0, (0.1, 1.0))):
        made = classifier_free(score, scale, interval=interval)
        with pytest.raises(
            InvalidValueError, match=r"needs a condition.* give condition=.'y': ...."
        ):
            scoresde.sample(made, seed=0)
    assert score.given + score.free == 0
    with pytest.raises(UnknownNameError, match="unknown condition 'label'"):
        scoresde.sample(made, seed=0, condition={"label": 3})
    assert score.given + score.free == 0
    scoresde.sample(classifier_free(score, 0.0), seed=0, sampler="ddim", steps=2)


@pytest.mark.parametrize(
    ("log_prob", "error", "message"),
    [
        (lambda x, t: x, ShapeError, "a log-probability must be one number per sample"),
        (lambda x, t: t, InvalidValueError, "does not depend on x"),
        (lambda x, t: 1.0, InvalidTypeError, "a log-probability must be a tensor"),
        (lambda x, t: math.nan * x.sum(1), NonFiniteError, "the score returned NaN"),
        (lambda x: x.sum(1), InvalidTypeError, "called as"),
    ],
)
def test_an_invalid_log_probability_is_refused(log_prob, error, message):
    made = classifier(Exact(VP, 0.0, 1.0), log_prob, 1.0)
    with pytest.raises(error, match=message):
        scoresde.sample(made, VP, shape=(2,), steps=1, seed=0)
