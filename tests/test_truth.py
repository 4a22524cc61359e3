"""Test that the denoiser follows from the score (L65), and nothing is broadcast (L66)."""

import functools
from contextlib import nullcontext
from dataclasses import replace
from unittest.mock import MagicMock

import pytest
import torch
from torch import nn

import scoresde
from scoresde import (
    SAMPLERS,
    VPSDE,
    EnergyScore,
    Facts,
    Moments,
    ScoreModel,
    Wrapped,
    dsm_loss,
    facts,
    fd_ssm_loss,
    from_denoiser,
    ism_loss,
    log_prob,
    sample,
    ssm_loss,
)
from scoresde.errors import InvalidTypeError, ShapeError
from scoresde.noise import Noise
from scoresde.samplers import MALA, correct
from scoresde.score import modules
from scoresde.targets import Gaussian

SDE = VPSDE()
LOSSES = (dsm_loss, ism_loss, ssm_loss, fd_ssm_loss)


class Net(nn.Module):
    """Define a smooth network with weights and dropout."""

    def __init__(self):
        super().__init__()
        self.weight = nn.Parameter(torch.tensor([0.3, -0.2]))
        self.drop = nn.Dropout(0.5)

    def forward(self, x, c, **condition):
        return self.drop(torch.tanh(self.weight * x + c[:, None]))


def built(kind=ScoreModel):
    model = kind(Net(), SDE, (2,), moments=Moments(torch.tensor([5.0, -3.0]), var=0.25))
    model.steps = 7
    return model


def changed(score, x):
    return 0.9 * score - 0.05 * x


class Changed(ScoreModel):
    """Define a model whose score is overridden."""

    def forward(self, x, t, condition=None):
        return changed(super().forward(x, t, condition), x)


class Proxy:
    """Define an object that changes the score and hands on every attribute of the model."""

    def __init__(self, inner):
        self.inner = inner

    def __getattr__(self, name):
        return getattr(self.inner, name)

    def __call__(self, x, t):
        return changed(self.inner(x, t), x)


class ThreeLines:
    """Define the wrapper that everybody writes first."""

    def __init__(self, score):
        self.score = score

    def __call__(self, x, t):
        return changed(self.score(x, t), x)


def hooked():
    model = built()
    model.register_forward_hook(lambda module, args, out: changed(out, args[0]))
    return model


KINDS = {
    "subclass": lambda: built(Changed),
    "proxy": lambda: Proxy(built()),
    "hook": hooked,
    "compiled": lambda: torch.compile(built(Changed), backend="eager"),
    "wrapper": lambda: ThreeLines(built()),
    "DataParallel": lambda: nn.DataParallel(built(Changed)),
}


class Reference(Wrapped):
    def __call__(self, x, t, condition=None):
        return changed(self.ask(self.score, x, t, condition), x)


@pytest.mark.slow
@pytest.mark.law(65)
@pytest.mark.parametrize("kind", KINDS)
def test_every_sampler_follows_what_the_score_returns(kind):
    """13 of 31 samplers gave the plain model's samples, and the others its last denoising."""
    score = KINDS[kind]()
    for name in SAMPLERS:
        found = drawn(score, name)
        expected, plain = known_of(name)
        torch.testing.assert_close(found, expected, rtol=1e-5, atol=1e-5, msg=name)
        assert not torch.allclose(found, plain, atol=1e-3), name


def drawn(score, name):
    budget = dict(steps=1) if SAMPLERS[name].adaptive else dict(nfe=16)
    # a pilot would be measured with each score itself
    return sample(score, sampler=name, n=2, seed=0, pilot=False, **budget)


@functools.cache
def known_of(name):
    """Samples of the reference and of the unchanged model, the same for every kind."""
    return drawn(Reference(built()), name), drawn(built(), name)


@pytest.mark.slow
@pytest.mark.law(65)
@pytest.mark.filterwarnings(
    "ignore:at the largest noise the log-density differs:UserWarning"
)  # nothing is trained
@pytest.mark.filterwarnings("ignore:The .grad attribute of a Tensor:UserWarning")  # torch.compile's
@pytest.mark.parametrize("kind", KINDS)
def test_the_likelihood_and_the_losses_follow_what_the_score_returns(kind):
    x = torch.tensor([[5.1, -3.2], [4.7, -2.9], [5.0, -3.5]])
    score, reference = KINDS[kind](), Reference(built())
    found, expected = log_prob(score, SDE, x).value, log_prob(reference, SDE, x).value
    torch.testing.assert_close(found, expected, rtol=1e-5, atol=1e-5)
    assert not torch.allclose(found, log_prob(built(), SDE, x).value, atol=1e-2)
    for module in (*modules(score), *modules(reference)):
        module.eval()
    for loss in LOSSES:
        found, expected = (loss(s, SDE, x, noise=Noise.of(1, 3)) for s in (score, reference))
        torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-4)


@pytest.mark.slow
@pytest.mark.parametrize("kind", KINDS)
def test_a_score_made_of_another_keeps_its_moments_steps_and_pilot(kind):
    """Lost moments gave a mean of (4.53, -2.85) for (5.02, -3.00), lost steps 1,001 evaluations."""
    known = facts(KINDS[kind]())
    assert (known.sde, known.event_shape, known.steps, known.passes) == (SDE, (2,), 7, 1)
    assert torch.equal(known.moments.mean, torch.tensor([5.0, -3.0]))


def test_attributes_of_foreign_scores_are_not_read():
    class Foreign(nn.Module):
        steps, pilot, data, event_shape = 3, "x", "y", (7,)

        def forward(self, x, t):
            return -x

        def denoise(self, x, t):
            raise AssertionError("nobody asks a foreign method")

        log_prob = denoise

    assert facts(Foreign()) == Facts()
    assert sample(Foreign(), SDE, "fast", shape=(2,), nfe=9, seed=0).isfinite().all()
    assert sample(Foreign(), SDE, shape=(2,), steps=2, seed=0).shape == (1, 2)


def test_an_object_with_every_attribute_is_a_score_without_facts():
    class Everything:
        def __getattr__(self, name):
            return Everything()

        def __call__(self, x, t):
            return -x

    assert facts(Everything()) == Facts()
    assert facts(MagicMock()) == Facts()


# Guidance is a formula


class Guided(Wrapped):
    """Classifier-free guidance (Ho & Salimans 2022, arXiv:2207.12598), as a user writes it."""

    def __call__(self, x, t, condition=None):
        given, free = self.ask(self.score, x, t, condition), self.ask(self.score, x, t)
        return free + 2.0 * (given - free)

    @property
    def facts(self):
        return replace(super().facts, passes=2)


@pytest.mark.slow
def test_guidance_is_eight_lines_and_samples_with_all_facts_of_the_model():
    model = scoresde.load("mnist")
    guided = Guided(model)
    known, own = facts(guided), facts(model)
    assert known == replace(own, passes=2, moments=known.moments)
    run = scoresde.Run.of(guided, sampler="fast", n=2, seed=0, condition={"label": 3}, units=True)
    assert run.sampler.pilot is model.pilot
    assert torch.equal(run.moments.mean, model.mean)
    samples = run.draw()
    assert (samples.nfe, samples.passes) == (21, 42)
    assert samples.x.dtype == torch.uint8
    assert len(scoresde.Run.of(guided, sampler="em", seed=0).times) == model.steps + 1


# Modes of the networks


@pytest.mark.filterwarnings("ignore:the samples are .* times as large")
def test_every_network_inside_a_score_is_evaluated_and_restored():
    seen = []

    class Watched(Net):
        def forward(self, x, c, **condition):
            seen.append(self.training)
            return super().forward(x, c)

    def model():
        return ScoreModel(Watched(), SDE, (2,)).train()

    one, two, three, four = model(), model(), model(), model()

    class Pair(Wrapped):
        def __call__(self, x, t, condition=None):
            return self.ask(self.score, x, t) + self.others[0](x, t)

    def closed(x, t):
        return three(x, t)

    partial = functools.partial(lambda x, t, score: score(x, t), score=four)
    for score, inner in (
        (Pair(one, two), (one, two)),
        (Wrapped(closed), (three,)),
        (partial, (four,)),
        ({"score": [one]}["score"][0], (one,)),
    ):
        seen.clear()
        lost = inner[0] in (three, four)
        with pytest.warns(UserWarning, match="hides its facts") if lost else nullcontext():
            sample(score, SDE, "ddim", shape=(2,), steps=2, seed=0)
        assert seen
        assert not any(seen)
        assert all(module.training and module.net.drop.training for module in inner)


def test_interleaved_runs_restore_the_mode_in_any_order():
    model = built().train()
    first, second = (scoresde.trajectory(model, sampler="em", steps=3, seed=s) for s in (0, 1))
    next(first), next(second)
    assert model.training
    first.close()
    next(second)
    second.close()
    assert model.training
    assert model.net.drop.training


# When the density of a score is known


def energy(x, t):
    return (x**2).sum(1) / 2


class Louder(EnergyScore):
    def forward(self, x, t, condition=None):
        return 2 * super().forward(x, t, condition)


def with_hook():
    score = EnergyScore(energy)
    score.register_forward_hook(lambda module, args, out: 2 * out)
    return score


def with_attribute():
    score = EnergyScore(energy)
    score.forward = lambda x, t: -2 * x
    return score


@pytest.mark.parametrize(
    "score",
    [
        Louder(energy),
        Proxy(EnergyScore(energy)),
        ThreeLines(EnergyScore(energy)),
        with_hook(),
        with_attribute(),
        lambda x, t: -x,
    ],
    ids=["subclass", "proxy", "wrapper", "hook", "attribute", "function"],
)
def test_the_density_of_the_score_inside_a_changed_score_is_not_used(score):
    assert SDE.reverse(score).method("log_prob") is None
    with pytest.raises(InvalidTypeError, match=r"no method log_prob\(x, t\)"):
        correct(MALA(), 1, SDE.reverse(score), torch.ones(2, 2), torch.tensor(0.5), Noise.of(0, 2))


@pytest.mark.parametrize(
    "score", [EnergyScore(energy), Gaussian([0.0, 0.0], var=1.0).at(SDE)], ids=repr
)
def test_a_density_defined_with_the_score_is_used(score):
    rsde = SDE.reverse(score)
    assert rsde.method("log_prob")(torch.ones(3, 2), 0.5).shape == (3,)
    assert rsde.nfe == 1
    assert rsde.method("log_likelihood") is None


# No broadcast


class OneChannel(nn.Module):
    def forward(self, x, c, **condition):
        return x[:, :1]


DOORS = {
    "sample": lambda score: sample(score, SDE, shape=(3, 4, 4), steps=2, seed=0),
    "trajectory": lambda score: list(
        scoresde.trajectory(score, SDE, shape=(3, 4, 4), steps=2, seed=0)
    ),
    "pilot": lambda score: scoresde.pilot(score, SDE, shape=(3, 4, 4), n=2),
    "log_prob": lambda score: log_prob(score, SDE, torch.zeros(2, 3, 4, 4)),
    "encode": lambda score: scoresde.encode(score, SDE, torch.zeros(2, 3, 4, 4)),
    **{
        loss.__name__: lambda score, loss=loss: loss(score, SDE, torch.zeros(2, 3, 4, 4))
        for loss in LOSSES
    },
}


@pytest.mark.law(66)
@pytest.mark.global_rng  # losses without a seed
@pytest.mark.parametrize("door", DOORS)
@pytest.mark.parametrize(
    "score",
    [
        ScoreModel(OneChannel(), SDE, (3, 4, 4)),
        lambda x, t: x[:, :1],
        from_denoiser(lambda x, t: x[:, :1], SDE),
    ],
    ids=["network", "score", "denoiser"],
)
def test_an_output_of_another_shape_is_an_error_at_the_first_evaluation(score, door):
    with pytest.raises(ShapeError, match=r"must return the shape of its input, expected .*3, 4, 4"):
        DOORS[door](score)
