r"""Draw samples from a score by solving its SDE backwards in time: `sample` and `trajectory`."""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable, Iterator
from typing import Any, TypeVar, Unpack, cast

from torch import Tensor

from scoresde.checks import bind, quoted
from scoresde.errors import InvalidTypeError
from scoresde.samplers import Sampler, State
from scoresde.sampling.open_classes import warn_of_open_classes
from scoresde.sampling.run import Options, Run
from scoresde.sde import SDE, Score, facts

__all__ = ["sample", "trajectory"]

F = TypeVar("F", bound=Callable[..., object])


def _shown(door: F) -> F:
    """Add the arguments of `Run.of` to the signature of a function, and check them at each call."""
    plain = inspect.signature(door)
    asked = [p for p in plain.parameters.values() if p.kind is not p.VAR_KEYWORD]
    options = [p for p in inspect.signature(Run.of).parameters.values() if p.kind == p.KEYWORD_ONLY]
    last = [p for p in asked if p.kind == p.KEYWORD_ONLY]
    first = [p for p in asked if p.kind != p.KEYWORD_ONLY]
    signature = plain.replace(parameters=[*first, *options, *last])

    @functools.wraps(door)
    def checked(*args: Any, **kwargs: Any) -> object:
        bind(door, signature, args, kwargs)
        return door(*args, **kwargs)

    checked.__signature__ = signature  # type: ignore[attr-defined]
    return cast(F, checked)


@_shown
def sample(
    score: Score,
    sde: SDE | None = None,
    sampler: str | Sampler = "pc",
    *,
    batch_size: int | None = None,
    **options: Unpack[Options],
) -> Tensor:
    r"""Draw samples from a score by running its SDE backwards.

    Args:
        score: A `ScoreModel`, or any callable `(x, t) -> score` with `x` `(B, *)` and `t` `(B,)`.
        sde: The process of the score; by default the process in the score's facts.
        sampler: A name in `SAMPLERS`, or a sampler object.
        n: The number of samples; by default 1, or the length of `x`.
        shape: The shape of one sample, without the batch; by default the shape in the score's
            facts.
        steps: The number of steps of the sampler. By default an SDE with levels takes all levels;
            otherwise it is the sampler's default, or the number in the score's facts if smaller.
        nfe: The largest number of evaluations of the score for each sample, including the
            evaluation for `denoise`; instead of `steps`.
        times: The decreasing times of the grid, in `[0, T]`; instead of `steps`.
        x: The initial states `(n, *shape)` at `times[0]`; by default draws from the prior.
        seed: The seed; sample `first + i` depends only on the seed and on `first + i`.
        generator: A generator from which n seeds are drawn, or a list of n generators, in place of
            `seed`. Without both, one seed is drawn from torch's global generator.
        first: The sample index of the first sample.
        batch_size: The number of samples to draw at once, which limits the memory. Every chunk has
            exactly this size (the last chunk is padded), so that a network's rounding does not
            depend on `n`.
        denoise: Return $E[x_0 | x_\epsilon]$, which takes one more evaluation, instead of draws
            from $p_\epsilon$.
        condition: The conditions that the score takes, by name: a tensor with one row for each
            sample, or one row or number for all samples, such as `{"label": 7}`. Without a
            condition the samples follow the distribution of all data; a model has learnt this
            distribution from the part of its training in which conditions were hidden. (The command
            `scoresde sample` draws all classes in turn instead.)
        moments: The mean and variance of the data, for the prior; by default the moments in the
            score's facts.
        pilot: The result of `scoresde.pilot`, for samplers that use a pilot, such as "fast"; by
            default the pilot in the score's facts. A `ScoreModel` measures its pilot at the first
            use, by 64 evaluations of 32 samples, and keeps it. False uses no pilot.
        grad: Make samples differentiable in `x`, in conditions, and in the weights of the score.
            The run stores a few states of each step and no activations; the backward pass evaluates
            the networks again. (Scores that compute gradients themselves store activations.) With
            `units`, samples of byte data are floats.
        units: Return samples in the user's units, in which the data were before their transform.
        progress: True shows a progress bar. None shows a bar in a terminal or a notebook, and lines
            of text elsewhere.
        device: The device; by default the device of `x` or of the score's networks.
        dtype: The floating-point dtype of the samples; by default the dtype of `x`, or float32.

    Returns:
        Samples `(n, *shape)`, finite.

    Raises:
        UnknownNameError: The name of the sampler, or of a condition, is unknown.
        InvalidValueError, InvalidTypeError, ShapeError: An argument does not fit.
        NonFiniteError: `x` or the score has a NaN or an infinity, or samples overflow `dtype`.
        ConvergenceError: An adaptive sampler needs more evaluations than it may take.
        DeviceError: The score and the states are on different devices.
        MemoryLimitError: A chunk does not fit into memory.

    Warns:
        UserWarning: The score has named classes, but no class is given; it hides the facts of a
            score inside it; the noise at T is far too large, or the noise at eps larger than the
            data; or the samples are much larger than the data.

    Examples:
        >>> import scoresde
        >>> model = scoresde.load("mnist")
        >>> x = scoresde.sample(model, sampler="fast", nfe=10, n=4, seed=0, units=True)
        >>> x.shape, x.dtype
        (torch.Size([4, 1, 28, 28]), torch.uint8)
    """
    return _request(score, sde, sampler, options).draw(batch_size).x


@_shown
def trajectory(
    score: Score,
    sde: SDE | None = None,
    sampler: str | Sampler = "pc",
    **options: Unpack[Options],
) -> Iterator[State]:
    """Yield the states of a sampling run one by one; `break` stops it early.

    The arguments are those of `sample`, without `batch_size`. The first state that is yielded is
    the initial state. With `denoise`, the last state repeats the time and the samples of the state
    before it, and also has `denoised`. States are copies, which you may change in place.

    Args:
        score: A score, as in `sample`.
        sde: The process; by default the process in the score's facts.
        sampler: A name in `SAMPLERS`, or a sampler object.
        options: The keyword arguments of `sample`.

    Returns:
        An iterator of `State(t, x, denoised, nfe, passes)`. Wrong arguments raise errors
        immediately, before the first state is requested.

    Examples:
        >>> import scoresde
        >>> target = scoresde.targets.Gaussian([0.0, 1.0], std=0.5)
        >>> score = target.at(scoresde.VPSDE())
        >>> [len(state.x) for state in scoresde.trajectory(score, sampler="ddim", steps=2, n=5)]
        [5, 5, 5, 5]
    """
    return _request(score, sde, sampler, options).states()


def _request(score: Score, sde: SDE | None, sampler: str | Sampler, options: Options) -> Run:
    if isinstance(sde, str):
        raise InvalidTypeError(f"the second argument is an SDE; write sampler={quoted(sde)}")
    run = Run.of(score, sde, sampler, **options)
    warn_of_open_classes(facts(score), options.get("condition"))
    return run
