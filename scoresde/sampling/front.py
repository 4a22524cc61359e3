r"""The front door: `sample` and `trajectory`."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace

import torch
from torch import Tensor
from tqdm import tqdm

from scoresde.checks import check_integer
from scoresde.samplers import Sampler, State
from scoresde.sampling.problem import Generators, prepare
from scoresde.sampling.run import Score
from scoresde.score import evaluating
from scoresde.sde import SDE, Moments

__all__ = ["sample", "trajectory"]


def sample(
    model: Score,
    sde: SDE,
    sampler: str | Sampler = "pc",
    *,
    n: int | None = None,
    shape: Sequence[int] | None = None,
    steps: int | None = None,
    nfe: int | None = None,
    times: Tensor | None = None,
    x: Tensor | None = None,
    seed: int | None = None,
    generator: Generators | None = None,
    first: int = 0,
    batch_size: int | None = None,
    denoise: bool = True,
    condition: Mapping[str, Tensor] | None = None,
    data: Moments | None = None,
    progress: bool | None = None,
    device: torch.device | str | None = None,
    dtype: torch.dtype | None = None,
) -> Tensor:
    r"""Draw samples from a score by running the SDE backwards.

    Args:
        model: A `ScoreModel`, or any callable `(x, t) -> score` with `x` `(B, *)` and `t` `(B,)`.
        sde: The process whose score it is.
        sampler: A name of `SAMPLERS`, or a sampler object.
        n: How many samples; by default 1, or the length of `x`.
        shape: The shape of one sample, without the batch; a `ScoreModel` knows its own.
        steps: Steps of the sampler; by default the model's own number, all levels of an SDE with
            levels, or the sampler's default.
        nfe: In place of `steps`: a budget of network evaluations per sample, `denoise` included.
        times: In place of `steps`: the decreasing times themselves, within `[0, T]`.
        x: Where to start, a draw `(n, *shape)` of the law at `times[0]`; by default the prior.
        seed: Sample `first + i` of a seed depends on the seed and on that number alone.
        generator: In place of `seed`: a generator draws n seeds, a list of n draws one from each.
            With neither, torch's global generator is asked for one seed.
        first: The number of the first sample of the seed.
        batch_size: Samples per chunk, to bound memory. Every chunk has exactly this size (the last
            one is padded), so that a network's results do not depend on `n`.
        denoise: Whether to end with $E[x_0 | x_\epsilon]$, one more evaluation, in place of a draw
            of $p_\epsilon$.
        condition: What the model takes beside `(x, t)`: tensors with one row for each sample.
        data: The data's moments, for the prior; a `ScoreModel` knows its own.
        progress: Whether to show a bar; `None` shows it on a terminal.
        device: Where to sample; by default where `x` or the model is.
        dtype: Of the samples, floating point; by default that of `x`, or float32.

    Returns:
        Samples `(n, *shape)`, finite.

    Raises:
        UnknownNameError: The sampler's name is unknown.
        InvalidValueError, InvalidTypeError, ShapeError: An argument does not fit.
        NonFiniteError: `x` or the score has a NaN or an infinity, or samples do not fit `dtype`.
        DeviceError: The model and the state are on different devices.
        MemoryLimitError: A chunk does not fit into memory.
    """
    if batch_size is not None:
        batch_size = check_integer("batch_size", batch_size, 1)
    run = prepare(
        model, sde, sampler, n, shape, steps, nfe, times, x, seed, generator, first, denoise,
        condition, data, device, dtype,
    )  # fmt: skip
    size = max(run.n, 1) if batch_size is None else batch_size
    chunks = [run.rows(i, size) for i in range(0, run.n, size)] or [run]
    out = []
    bar = None if progress is None else not progress
    with (
        torch.no_grad(),
        evaluating(model),
        tqdm(
            total=len(chunks) * run.length, disable=bar, desc="sampling", unit="step", leave=False
        ) as shown,
    ):
        for chunk in chunks:
            for state in chunk.states():  # noqa: B007
                shown.update()
            out.append(chunk.samples(state))
    return torch.cat(out)[: run.n]


def trajectory(
    model: Score,
    sde: SDE,
    sampler: str | Sampler = "pc",
    *,
    n: int | None = None,
    shape: Sequence[int] | None = None,
    steps: int | None = None,
    nfe: int | None = None,
    times: Tensor | None = None,
    x: Tensor | None = None,
    seed: int | None = None,
    generator: Generators | None = None,
    first: int = 0,
    denoise: bool = True,
    condition: Mapping[str, Tensor] | None = None,
    data: Moments | None = None,
    progress: bool | None = None,
    device: torch.device | str | None = None,
    dtype: torch.dtype | None = None,
) -> Iterator[State]:
    """The states of a sampling run, one at a time; stop early by `break`.

    The arguments are those of `sample`. The first state is the start; with `denoise`, the last one
    repeats the time and the samples of the state before it and adds `denoised`. What is done to a
    state in place does not reach the run.

    Returns:
        An iterator of `State(t, x, denoised, nfe)`; wrong arguments raise before the first.
    """
    run = prepare(
        model, sde, sampler, n, shape, steps, nfe, times, x, seed, generator, first, denoise,
        condition, data, device, dtype,
    )  # fmt: skip

    def copies() -> Iterator[State]:
        for state in run.states():
            yield replace(state, x=state.x.clone())

    def states() -> Iterator[State]:
        bar = None if progress is None else not progress
        with evaluating(model):
            # step by step, since the user's code runs in between
            yield from tqdm(
                torch.no_grad()(copies)(),
                total=run.length,
                disable=bar,
                desc="sampling",
                leave=False,
            )

    return states()
