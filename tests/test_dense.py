"""Test that sparse, nested, quantized and meta tensors are refused by every public function."""

from __future__ import annotations

import warnings
from collections.abc import Callable

import pytest
import torch
from torch import Tensor

import scoresde
from scoresde import VPSDE, Noise, metrics, targets
from scoresde.data import Data
from scoresde.errors import InvalidTypeError, InvalidValueError, ScoreSDEError
from scoresde.likelihood import elbo

SDE = VPSDE()
TARGET = targets.Gaussian([0.3, -1.0], std=[0.5, 1.2])
SCORE = TARGET.at(SDE)
X = torch.tensor([[0.1, 0.2], [1.0, -1.0], [0.3, -2.0]])

ODD: dict[str, Callable[[Tensor], Tensor]] = {
    "sparse": Tensor.to_sparse,
    "rows": Tensor.to_sparse_csr,
    "meta": lambda x: x.to("meta"),
    "nested": lambda x: torch.nested.nested_tensor(list(x)),
    "jagged": lambda x: torch.nested.nested_tensor(list(x), layout=torch.jagged),
    "eight bits": lambda x: x.to(torch.float8_e5m2),
    "quantized": lambda x: torch.quantize_per_tensor(x, 0.1, 0, torch.quint8),
}
DOORS: dict[str, Callable[..., object]] = {
    "sample": lambda score, x: scoresde.sample(score, SDE, "ddim", x=x, steps=2, seed=0),
    "log_prob": lambda score, x: scoresde.log_prob(score, SDE, x),
    "elbo": lambda score, x: elbo(score, SDE, x, draws=2),
    "encode": lambda score, x: scoresde.encode(score, SDE, x),
    "dsm": lambda score, x: scoresde.dsm_loss(score, SDE, x, noise=Noise.of(0, len(X))),
    "ism": lambda score, x: scoresde.ism_loss(score, SDE, x, noise=Noise.of(0, len(X))),
    "ssm": lambda score, x: scoresde.ssm_loss(score, SDE, x, noise=Noise.of(0, len(X))),
    "fd_ssm": lambda score, x: scoresde.fd_ssm_loss(score, SDE, x, noise=Noise.of(0, len(X))),
}


@pytest.fixture(autouse=True)
def _prototypes() -> object:
    """Let torch say that these layouts are young."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield


@pytest.mark.parametrize("door", DOORS)
@pytest.mark.parametrize("odd", ODD)
def test_neither_points_nor_scores_may_be_anything_but_dense(odd: str, door: str) -> None:
    with pytest.raises(ScoreSDEError):
        DOORS[door](SCORE, ODD[odd](X))
    with pytest.raises(ScoreSDEError):
        DOORS[door](lambda x, t: ODD[odd](SCORE(x, t).detach()), X)


@pytest.mark.parametrize("odd", ODD)
def test_data_and_conditions_are_dense(odd: str) -> None:
    with pytest.raises(ScoreSDEError):
        Data(ODD[odd](X))
    with pytest.raises(ScoreSDEError):
        scoresde.sample(
            lambda x, t, condition: -x,
            SDE, "ddim", shape=(2,), n=3, steps=2, seed=0, condition={"y": ODD[odd](X)},
        )  # fmt: skip


@pytest.mark.parametrize("odd", ODD)
def test_samples_and_figures_that_are_compared_are_dense(odd: str) -> None:
    many = X.repeat(20, 1)
    for pair in ((ODD[odd](many), many), (many, ODD[odd](many))):
        with pytest.raises(ScoreSDEError):
            metrics.evaluate(*pair, metrics="kid", resamples=0)
        with pytest.raises(ScoreSDEError):
            metrics.kernel_distance(*pair)
    with pytest.raises(ScoreSDEError):
        metrics.mean_interval(ODD[odd](X))


@pytest.mark.parametrize("x", [X.numpy(), X.tolist(), 1.0], ids=type)
def test_states_of_a_process_are_tensors(x: object) -> None:
    for call in (SDE.reverse(SCORE).drift, SDE.reverse(SCORE).score, SDE.drift, SDE.marginal):
        with pytest.raises(InvalidTypeError, match="x must be a tensor, got "):
            call(x, 0.5)  # type: ignore[arg-type]
    with pytest.raises(InvalidTypeError, match="x must be a tensor, got "):
        SDE.perturb(x, 0.5, X)  # type: ignore[arg-type]


@pytest.mark.parametrize("value", [(X,), [1.0, 2.0], None, 0.0, X.numpy()])
def test_a_pilot_of_another_type_is_reported(value: object) -> None:
    with pytest.raises(ScoreSDEError, match="must return a tensor"):
        scoresde.pilot(lambda x, t: value, SDE, shape=(2,), n=3, steps=6)  # type: ignore[arg-type, return-value]


@pytest.mark.parametrize("door", DOORS)
def test_a_score_that_changes_its_input_in_place_is_an_error(door: str) -> None:
    with pytest.raises(InvalidValueError, match="changed its input x in place"):
        DOORS[door](lambda x, t: x.mul_(-1), X)


@pytest.mark.parametrize("value", [torch.tensor([1, 2, 0]), torch.ones(3, 2)])
def test_a_score_that_changes_its_condition_in_place_is_an_error(value: Tensor) -> None:
    def score(x: Tensor, t: Tensor, condition: dict[str, Tensor]) -> Tensor:
        condition["y"].zero_()
        return -x

    noise, given = Noise.of(0, len(X)), {"y": value}
    for call in (
        lambda: scoresde.sample(score, SDE, x=X, steps=2, seed=0, condition=given),
        lambda: scoresde.log_prob(score, SDE, X, condition=given),
        lambda: scoresde.encode(score, SDE, X, condition=given),
        lambda: scoresde.dsm_loss(score, SDE, X, noise=noise, condition=given),
        lambda: scoresde.fd_ssm_loss(score, SDE, X, noise=noise, condition=given),
    ):
        with pytest.raises(InvalidValueError, match="changed its input y in place"):
            call()


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize(
    "door", sorted(set(DOORS) - {"ism", "ssm", "log_prob"})
)  # those differentiate
def test_a_score_may_return_the_same_tensor_each_time(door: str, dtype: torch.dtype) -> None:
    places: dict[torch.Size, Tensor] = {}

    def written(x: Tensor, t: Tensor) -> Tensor:
        place = places.setdefault(x.shape, torch.empty_like(x))
        return place.copy_(SCORE(x, t))

    def result(score: object) -> Tensor:
        found = DOORS[door](score, X.to(dtype))
        return getattr(found, "value", found)  # type: ignore[return-value]

    expected = result(lambda x, t: SCORE(x, t))
    assert torch.equal(result(written), expected)


def test_a_density_needs_an_absolute_tolerance() -> None:
    with pytest.raises(InvalidValueError, match="atol must be positive"):
        scoresde.log_prob(SCORE, SDE, X, atol=0.0)
