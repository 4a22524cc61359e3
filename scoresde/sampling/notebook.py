"""Show models, requests and samples in a notebook: a table of their properties, and a picture."""

from __future__ import annotations

import math
import time
from collections.abc import Mapping
from typing import TYPE_CHECKING

import torch

from scoresde import plot
from scoresde.plot.kinds import USUAL
from scoresde.result import page
from scoresde.sampling.doors import sample
from scoresde.sampling.run import Run
from scoresde.sampling.samples import Samples
from scoresde.score import ScoreModel, device_of
from scoresde.sde import Classes, class_name
from scoresde.sde.words import conditions_in_words, event_in_words, sde_in_words
from scoresde.units import in_words

if TYPE_CHECKING:
    from matplotlib.figure import Figure

__all__ = ["model_page", "run_page", "samples_page"]

# The number of samples to show for each kind of data. They are shown only if drawing them stays
# within these numbers of entries, steps and seconds.
_N: Mapping[str, int] = {"points": 500, "signals": 8, "images": 8, "volumes": 2}
_NUMBERS, _STEPS, _SECONDS = 2**21, 12, 3.0


def model_page(model: ScoreModel) -> str:
    """Return an HTML table of a model's properties, with samples if they take about 3 s at most."""
    known = model.facts
    parameters = sum(p.numel() for p in model.net.parameters())
    rows = {
        "network": f"{type(model.net).__name__}, {parameters:,} parameters",
        "samples": event_in_words(model.event_shape, model.columns),
        "units": in_words(model.transform),
        "conditions": conditions_in_words(known.conditions or {}),
        "noise": sde_in_words(model.sde),
        "predicts": model.predicts,
        "sampling": "in the sampler's default number of steps"
        + (f", at most {model.steps}" if model.steps else ""),
        "pilot": "measured for the sampler fast" + (" at its first use" * (model.pilot is None)),
    }
    picture = _samples(model)
    if picture is not None:
        without = ", without a pilot" * (model.pilot is None)
        rows["picture"] = (
            f"{_N[plot.kind(model.event_shape)]} samples by the sampler fast in {_steps(model)} "
            f"steps{without}"
        )
    return page(_table(rows), picture, "samples")


def samples_page(samples: Samples) -> str:
    """Return the cost and the further results of samples as an HTML table, with a picture."""
    shape = tuple(samples.x.shape[1:])
    rows = {
        "samples": f"{len(samples.x):,} of {event_in_words(shape, ())}, in .x",
        "evaluations": f"{samples.nfe:,} per sample, which take {samples.passes:,} network passes",
    }
    for name, values in samples.info.items():
        numbers = torch.as_tensor(values).double()
        if numbers.numel():
            ends = f"from {float(numbers.min()):.3g} to {float(numbers.max()):.3g}"
            rows[name] = f"mean {float(numbers.mean()):.3g}, {ends}, in .info[{name!r}]"
    shown = samples.x[: USUAL[plot.kind(shape)]].detach()
    few = 0 < shown.numel() <= _NUMBERS
    return page(_table(rows), plot.samples(shown) if few else None, "samples")


def run_page(run: Run) -> str:
    """Return what a request will draw, and how, as an HTML table."""
    steps = len(run.times) - 1
    rows = {
        "draws": f"{run.n:,} of {event_in_words(run.shape, ())}, by .draw() or .states()",
        "noise": sde_in_words(run.sde),
        "sampler": f"{run.sampler!r}, {steps} steps from t = {float(run.times[0]):.4g} to "
        f"{float(run.times[-1]):.4g}" + (", then the remaining noise is removed" * run.denoise),
        "conditions": ", ".join(run.condition or ()) or "none",
        "units": "of the model" if run.transform is None else in_words(run.transform),
        "device": f"{run.device}, {run.dtype}",
    }
    return page(_table(rows), None)


def _table(rows: Mapping[str, str]) -> str:
    width = max(12, *(len(name) + 2 for name in rows))
    return "\n".join(f"{name:{width}}{text}" for name, text in rows.items())


def _steps(model: ScoreModel) -> int:
    """Return the number of steps for the samples in the picture of a model."""
    return _STEPS if model.sde.levels is None else min(_STEPS, model.sde.levels - 1)


def _samples(model: ScoreModel) -> Figure | None:
    """Return a figure of a few samples, or None if drawing them is slow or fails.

    A user's network can raise any error; then the table is shown without a figure.
    """
    n = _N[plot.kind(model.event_shape)]
    if n * math.prod(model.event_shape) > _NUMBERS:
        return None
    kinds = model.facts.conditions or {}
    label = {k: torch.arange(n) % v.n for k, v in kinds.items() if isinstance(v, Classes)}
    steps = _steps(model)
    try:
        x = torch.zeros(n, *model.event_shape, device=device_of(model))
        with torch.no_grad():
            start = time.perf_counter()
            model(x, model.sde.T, {k: v.to(x.device) for k, v in label.items()} or None)
            if (time.perf_counter() - start) * steps > _SECONDS:
                return None
        drawn = sample(
            model, None, "fast", n=n, steps=steps, seed=0, condition=label or None,
            pilot=model.pilot or False, progress=False,
        ).cpu()  # fmt: skip
        labels: list[str] = []
        name = class_name(kinds) or ""
        if isinstance(kind := kinds.get(name), Classes):
            labels = [(kind.names or range(kind.n))[k] for k in label[name].tolist()]
            labels = [word if isinstance(word, str) else f"{name} {word}" for word in labels]
        return plot.samples(drawn, transform=model.transform, names=model.columns, labels=labels)
    except Exception:  # for example if the network needs a condition
        return None
