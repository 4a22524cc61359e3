"""Test that wrong arguments of public functions give a result or a `ScoreSDEError`.

The table has a row for each argument of each name of `scoresde.__all__`, of the samplers and the
targets, and each value of `GARBAGE`; a run of the suite tries a part of it that is drawn by `SEED`.
"""

import inspect
import random
import warnings
from fractions import Fraction

import numpy as np
import pytest
import torch

import scoresde
from scoresde import (
    SAMPLERS,
    VESDE,
    VPSDE,
    Moments,
    ScoreSDEError,
    load,
    sample,
    samplers,
    targets,
    trajectory,
)
from scoresde.checks import door
from scoresde.errors import InvalidTypeError, UnknownNameError
from scoresde.likelihood import LogProb

SEED, ROWS = 20261129, 4000

SDE = VESDE(0.1, 5.0)
TARGET = targets.Gaussian([0.0, 1.0], std=[1.0, 0.5])
SCORE = TARGET.at(SDE)
X = torch.zeros(3, 2)


class Net(torch.nn.Module):
    def forward(self, x, c, **condition):
        return -x


class Unprintable:
    def __repr__(self):
        raise RuntimeError("no words for it")


GARBAGE = [
    None, True, False, -1, 0, 1, 2.5, float("nan"), float("inf"), -float("inf"), 1j, 10**30,
    "", "x", "pc", b"x", [], [1], ["a"], [[1.0]], (), (1, 2), (-1,), {}, {"a": 1}, {1: "a"},
    object(), object, Exception("x"), lambda *a, **k: None, lambda *a, **k: "x",
    torch.tensor(1.0), torch.tensor([]), torch.tensor([float("nan"), 1.0]), torch.zeros(3, 3, 3),
    torch.zeros(3, 2, dtype=torch.int64), torch.zeros(3, 2, dtype=torch.complex64),
    torch.zeros(2, 3, dtype=torch.uint8), torch.float16, torch.int8,
    np.array([1.0, 2.0]), np.array(["a"]), np.float32(0.5), np.int64(3), range(3), SDE, SCORE,
    Moments(0.0, var=1.0), SAMPLERS["em"], X, Unprintable(),
]  # fmt: skip

# A working call for each name; the tests change its arguments one at a time.
VALID = {
    "Condition": dict(values={"a": X}),
    "EnergyScore": dict(energy=lambda x, t: (x**2).sum(1), sde=SDE, event_shape=(2,)),
    "Facts": dict(sde=SDE, event_shape=(2,)),
    "Field": dict(shape=(2,)),
    "Classes": dict(n=3),
    "BetaLadder": dict(betas=(0.1, 0.2)),
    "NCSNLadder": dict(sigmas=(0.1, 1.0)),
    "Moments": dict(mean=0.0, var=1.0),
    "Noise": dict(seeds=[1, 2], indices=[0, 1]),
    "Pilot": dict(
        ell=torch.linspace(-6, 6, 12, dtype=torch.float64),
        factor=torch.ones(3, 12, dtype=torch.float64), moments=Moments(0.1, var=0.4), nfe=12,
    ),
    "Rescheduled": dict(score=SCORE, sde=scoresde.EDMSDE(T=5.0, eps=0.1)),
    "ReverseSDE": dict(sde=SDE, score=SCORE),
    "Run.of": dict(score=SCORE, sde=SDE, steps=2, seed=0),
    "ScoreModel": dict(net=Net(), sde=SDE, event_shape=(2,)),
    "Wrapped": dict(score=SCORE),
    "bits_per_dim": dict(
        log_prob=LogProb(torch.zeros(3), {}, torch.zeros(3), 2),
        x=X[:, :1],
        data_transform="uint8",
    ),
    "decode": dict(score=SCORE, sde=SDE, latents=X),
    "encode": dict(score=SCORE, sde=SDE, x=X),
    "dsm_loss": dict(score=SCORE, sde=SDE, x=X),
    "ism_loss": dict(score=SCORE, sde=SDE, x=X),
    "ssm_loss": dict(score=SCORE, sde=SDE, x=X),
    "fd_ssm_loss": dict(score=SCORE, sde=SDE, x=X),
    "facts": dict(score=SCORE),
    "from_denoiser": dict(denoiser=lambda x, t: x, sde=SDE),
    "from_network": dict(net=lambda x, t: x, sde=SDE, predicts="eps"),
    "Latent": dict(score=SCORE, encoder=lambda x: x, decoder=lambda z: z),
    "load": dict(name="mnist"),
    "log_prob": dict(score=SCORE, sde=SDE, x=X, rtol=1e-1, atol=1e-1),
    "pilot": dict(score=SCORE, sde=SDE, n=2, steps=6),
    "sample": dict(score=SCORE, sde=SDE, steps=2, seed=0),
    "trajectory": dict(score=SCORE, sde=SDE, steps=2, seed=0),
    "suggest": dict(data=torch.randn(40, 2, generator=torch.Generator().manual_seed(0))),
    "Gaussian": dict(mean=[0.0, 1.0], std=0.5),
    "GaussianMixture": dict(weights=[0.5, 0.5], means=[[0.0], [1.0]], stds=0.5),
    "KernelDensity": dict(points=torch.eye(3), bandwidth=0.1),
    "FixedLangevin": dict(epsilon=0.1),
    "Impute": dict(sampler=samplers.DDIM()),
    "Metropolis": dict(sampler=samplers.DDIM()),
    "Parallel": dict(sampler=samplers.DDIM()),
    "Particles": dict(sampler=samplers.Ancestral(), k=2),
    "SplitGibbs": dict(sampler=samplers.Ancestral(), rho=0.5),
    "Posterior": dict(
        target=targets.Gaussian([0.0, 1.0], std=0.5), A=torch.ones(1, 2), std=0.1, y=[1.0]
    ),
}  # fmt: skip
# Abstract classes, errors and protocols are not called; State holds what a sampler gives it.
NOT_CALLED = {
    "SDE", "Score", "ScoreSDEError", "SAMPLERS", "State", "nn", "samplers", "targets", "Run",
    "ItoSDE", "Sampler", "Adaptive", "Corrector", "ExponentialMultistep", "NoiseLike", "correct",
    "Target", "TargetScore", "Components", "Marginal",
}  # fmt: skip


def doors():
    """Every public callable by its name."""
    found = {"Run.of": scoresde.Run.of}
    for module in (scoresde, samplers, targets):
        found |= {name: getattr(module, name) for name in module.__all__ if name not in NOT_CALLED}
    return found


DOORS = doors()


def table():
    """All rows (name, argument, number of the value)."""
    return [
        (name, argument, number)
        for name, function in DOORS.items()
        for argument, parameter in inspect.signature(function).parameters.items()
        if parameter.kind not in (parameter.VAR_POSITIONAL, parameter.VAR_KEYWORD)
        for number in range(len(GARBAGE))
    ]


TABLE = table()
CHOSEN = random.Random(SEED).sample(TABLE, ROWS)


def call(name, argument, number):
    given = {**VALID.get(name, {}), argument: GARBAGE[number]}
    found = DOORS[name](**given)
    if name == "trajectory":
        found = list(found)
    return found


def finite(found) -> bool:
    value = getattr(found, "value", found)
    return (
        not isinstance(value, torch.Tensor)
        or not value.is_floating_point()
        or bool(value.isfinite().all())
    )


@pytest.mark.slow
@pytest.mark.global_rng  # some calls have no seed
@pytest.mark.parametrize("name", sorted(DOORS))
def test_garbage_ends_in_a_result_or_in_an_error_of_ours(name):
    surprises = []
    for row in (row for row in CHOSEN if row[0] == name):
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            try:
                if not finite(call(*row)):
                    surprises.append((*row[1:], "not finite"))
            except ScoreSDEError as error:
                if len(str(error)) > 600:
                    surprises.append((*row[1:], f"{len(str(error))} characters"))
            except Exception as error:  # what must not be returned
                surprises.append((*row[1:], f"{type(error).__name__}: {error}"[:200]))
    wrong = [f"{name}({argument}={GARBAGE[i]!r:.60}): {what}" for argument, i, what in (
        (argument, i if not isinstance(GARBAGE[i], Unprintable) else 0, what)
        for argument, i, what in surprises
    )]  # fmt: skip
    assert not wrong, "\n".join(wrong)


@pytest.mark.global_rng  # losses without a seed
def test_the_table_is_large_and_every_call_it_changes_works():
    assert ROWS >= 700
    for name in DOORS:
        given = VALID.get(name, {})
        if name not in {"load", "suggest"}:
            DOORS[name](**given)


# The mechanism


@door
def example(
    n: int, x: torch.Tensor | float = 0.0, *, kind: str = "a", sde: VESDE | None = None
) -> int:
    return n


def test_the_nearest_argument_to_an_unknown_one_is_named():
    with pytest.raises(InvalidTypeError, match=r"example takes no argument kin=; did you mean kin"):
        example(1, kin="b")
    with pytest.raises(InvalidTypeError, match="missing a required argument: 'n'"):
        example()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (dict(n=True), "n must be an integer, got True"),
        (dict(n=2.0), "n must be an integer, got 2.0"),
        (dict(n=1, x="a"), "x must be a tensor or a number, got 'a'"),
        (dict(n=1, kind=3), "kind must be a string, got 3"),
        (dict(n=1, sde=VESDE), "sde must be a VESDE or None, got <class"),
        (dict(n=Unprintable()), "n must be an integer, got an object of the class Unprintable"),
    ],
)
def test_one_wording_for_every_argument_of_another_type(arguments, message):
    with pytest.raises(InvalidTypeError, match=message):
        example(**arguments)


@pytest.mark.parametrize("n", [1, np.int64(1), torch.tensor(1), np.array(1)], ids=repr)
def test_integers_of_numpy_and_torch_are_integers_and_lists_are_tensors(n):
    assert example(n, [1.0, 2.0]) == n
    assert example(n, np.zeros(3), sde=SDE) == n


def test_an_unknown_word_is_refused_with_the_most_similar_choice():
    with pytest.raises(UnknownNameError, match="did you mean 'gaussian'"):
        scoresde.ssm_loss(SCORE, SDE, X, projection="gaussia")


def _score(x, t):
    return -x


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: sample(), "sample: missing a required argument: 'score'"),
        (lambda: sample(_score, None, "ddim", 3), "sample: too many positional arguments"),
        (lambda: sample(_score, step=3), "sample takes no argument step=; did you mean steps="),
        (lambda: trajectory(_score, batch_size=3), "trajectory takes no argument batch_size="),
        (lambda: VESDE(Fraction(1, 100)), "must be a number"),
        (
            lambda: sample(_score, VPSDE(), shape=(2,), seed=0, dtype=torch.float8_e4m3fn),
            "half precision",
        ),
        (lambda: sample(_score, VPSDE(), x=torch.zeros(2, 2).to_sparse()), "a dense tensor"),
    ],
)
def test_a_wrong_call_is_refused_with_the_name_of_the_function(call, message):
    with pytest.raises(InvalidTypeError, match=message) as caught:
        call()
    assert "cls" not in str(caught.value)


def test_times_and_shapes_may_come_from_numpy():
    x = sample(_score, VPSDE(), "ddim", shape=(np.int64(2),), times=np.linspace(1, 0.01, 3), seed=0)
    assert x.shape == (1, 2)


def test_a_long_unknown_name_is_cut_in_the_message():
    with pytest.raises(UnknownNameError) as caught:
        sample(_score, VPSDE(), "x" * 10_000, shape=(2,))
    assert len(str(caught.value)) < 1000


def test_bytes_in_the_users_units_do_not_depend_on_the_dtype_of_the_samples():
    model = load("mnist")
    full = sample(model, sampler="ddim", steps=3, n=2, seed=0, units=True)
    half = sample(model, sampler="ddim", steps=3, n=2, seed=0, units=True, dtype=torch.bfloat16)
    assert torch.equal(full, half)
