"""Compare samples with data by several metrics; as the floor, compare other data with data."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from functools import partial
from typing import Any, Protocol

import torch
from torch import Tensor

from scoresde.checks import check_integer, check_name, check_range, door, named, quoted
from scoresde.data import Data, Identity, Transform, order
from scoresde.data.column_order import in_columns
from scoresde.data.nearer import nearer
from scoresde.errors import DataError, InvalidTypeError, InvalidValueError, ShapeError
from scoresde.metrics.checks import same_units
from scoresde.metrics.evaluation import FIGURES, OWN, Comparison, Evaluation, Figure
from scoresde.metrics.fidelity import inception
from scoresde.metrics.frechet import Frechet
from scoresde.metrics.interval import difference_interval, share_interval
from scoresde.metrics.kernels import Kernel
from scoresde.metrics.memory import Copies
from scoresde.metrics.neighbours import Neighbours
from scoresde.metrics.resampling import check_resamples, estimate, halves
from scoresde.metrics.sources import Features, Source, features_of, opened
from scoresde.metrics.unbiased import Sliced
from scoresde.progress import each, showing

__all__ = ["METRICS", "Metric", "evaluate", "floor_of", "plan"]

# The number of held-out samples that are read to infer the units of other samples.
_LOOKED_AT = 1000
# The random orders of samples and data are seeded by these epoch numbers; splits and training use
# smaller epoch numbers.
_OF_SAMPLES, _OF_DATA = 2**63, 2**63 + 1


class Metric(Protocol):
    """Define a metric, which compares samples with data for several choices of rows.

    If a metric needs more than 2 rows, it has the number that it needs as an attribute `least`.
    """

    def __call__(self, x: Tensor, y: Tensor, rows: Tensor, others: Tensor) -> Mapping[str, Tensor]:
        """Return the values by name, `(S,)` each.

        Args:
            x: Features of samples, `(n, F)`, float64.
            y: Features of reference data, `(n, F)`.
            rows: S choices of rows of x, as masks `(S, n)`; the first mask selects all rows.
            others: The masks for y, which select as many rows.
        """
        ...


METRICS: Mapping[str, Metric] = {
    "frechet": Frechet(),
    "mmd": Kernel("gaussian"),
    "kid": Kernel("cubic"),
    "sliced": Sliced(),
    "neighbours": Neighbours(),
}
"""The names that `evaluate(metrics=...)` accepts."""


@door
@torch.no_grad()
def evaluate(
    samples: Source | Callable[..., Tensor],
    real: Source,
    *,
    features: Features | str | None = None,
    metrics: str | Iterable[str | Metric] | None = None,
    train: Source | None = None,
    seed: int = 0,
    resamples: int = 100,
    level: float = 0.95,
    progress: bool | None = None,
) -> Evaluation:
    r"""Compare samples with held-out data, and held-out data with each other.

    Two random sets of n data are drawn: the reference and the floor. The n samples and the floor
    are both compared with the reference. So the values of the floor are the values that n samples
    of the exact distribution would reach. Random halves of the sets give the intervals
    (`metrics.resampling`). Samples and data are read batch by batch; their features are held in
    memory.

    Args:
        samples: A tensor `(N, *)`, an iterable of batches, a `Data`, or the file or the folder of
            shards that `scoresde sample` writes. Numbers in files, and bytes, are assumed to be in
            the units of `real`. A tensor that is compared with a `Data` may be in the units of the
            data or of the model; its mean and standard deviation decide which.
        real: The held-out data in one of these forms, or a name that `scoresde.data.load` knows. If
            there are fewer than twice as many data as samples, fewer samples are used.
        features: A map from a batch `(B, *)` to its features `(B, F)`, called on at most 1024
            samples at a time; None or `"pixels"` takes the flattened samples themselves;
            `"inception"` is `inception()`.
        metrics: Names in `METRICS`, or `Metric` objects; None takes all metrics that this number of
            samples allows, but kid only with a feature map, since kid of raw numbers depends on
            their units.
        train: The training data, to measure memorisation; `real` must not contain training data.
        seed: The seed of the split and the halves, a 64-bit number.
        resamples: The number of random halves, at least 2; 0 for no intervals.
        level: The confidence of the intervals, in (0, 1).
        progress: True shows a bar, False nothing; None shows a bar in a terminal or a notebook, and
            occasional lines elsewhere.

    Returns:
        For each figure the value of the samples, the value of the floor, and the difference, with
        intervals.

    Raises:
        ShapeError: There are too few samples or data, or their features differ in size.
        UnknownNameError: There is no metric or feature map with this name.
        DataError: A source is empty or cannot be read, or more than 1 % of the held-out data are
            training data.
        InvalidValueError: A number is out of range.
        InvalidTypeError: A source, a feature or a metric has a wrong type, or bytes are compared
            with other numbers.
        NonFiniteError: A feature or a value is NaN or infinite.
    """
    given: Any = _not_a_score(samples)
    features = _map(features)
    usual = [name for name in METRICS if name != "kid" or features is not None]
    chooses = metrics is None
    metrics = usual if metrics is None else metrics
    chosen, least = plan(metrics, resamples, train is not None)
    check_integer("seed", seed, 0)
    check_range("level", level, "(0, 1)")
    real = opened("real", real)
    units = real.transform if isinstance(real, Data) else Identity()
    given, train = _in_order("samples", given, real), _in_order("train", train, real)
    if isinstance(given, Tensor) and isinstance(real, Data):
        given = _in_model_units(given, real)
    seen: dict[str, tuple[bool, float]] = {}
    read = partial(_read, features=features, units=units, progress=progress, seen=seen)
    drawn, data = read("samples", given), read("real", real)
    known = None if train is None else read("train", train)
    same_units(**seen)
    for name, other in (("real", data), ("train", data if known is None else known)):
        if other.shape[1] != drawn.shape[1]:
            raise ShapeError(
                f"samples and {name} must have the same number of features, got "
                f"{drawn.shape[1]} and {other.shape[1]}"
            )
    n = min(len(drawn), len(data) // 2)
    left: list[str] = []
    if chooses and n < least:
        left = [name for name in usual if plan(name, resamples, train is not None)[1] > n]
        if fit := [name for name in usual if name not in left]:
            chosen, least = plan(fit, resamples, train is not None)
    if n < least:
        raise ShapeError(
            f"these metrics need at least {least} samples and {2 * least} real data"
            f"{', since intervals come from halves of them' if resamples else ''}; got "
            f"{len(drawn)} and {len(data)}; give more samples or data, or choose metrics that "
            "need fewer"
        )
    x = drawn[order(len(drawn), seed=seed, epoch=_OF_SAMPLES)[:n]]
    y, z = (
        data[order(len(data), seed=seed, epoch=_OF_DATA)[:n]],
        data[floor_of(len(data), n, seed=seed)],
    )
    rows, others, floor_rows = (halves(n, resamples, seed=seed, stream=i) for i in (1, 2, 3))
    if known is not None:
        chosen.append(Copies(known))
    figures: dict[str, Comparison] = {}
    sure = partial(estimate, level=level, samples=n)
    for metric in each(chosen, "comparing", unit="metric", show=progress):
        found, floor = _found(metric, x, y, rows, others), _found(metric, z, y, floor_rows, others)
        for name, values in found.items():
            _, low, high, square, share = FIGURES.get(name, Figure(""))
            pair = [sure(of, limits=(low, high), square=square) for of in (values, floor[name])]
            gap = sure(values - floor[name], limits=(low - high, high - low))
            if share and resamples:
                gap = gap.within(difference_interval(pair[0].value, pair[1].value, n, level))
                pair = [part.within(share_interval(part.value, n, level)) for part in pair]
            figures[name] = Comparison(pair[0], pair[1], gap)
    what = OWN if features is None else _name(features)
    spread = float(y.var(0).mean())
    of = "data" if units == Identity() else "model"
    return Evaluation(
        figures, n, drawn.shape[1], what, seed, resamples, level, spread, (*left,), of
    )  # fmt: skip


def floor_of(size: int, n: int, *, seed: int) -> Tensor:
    """Return the indices of the n data that become the floor."""
    return order(size, seed=seed, epoch=_OF_DATA)[n : 2 * n]


def plan(
    metrics: str | Iterable[str | Metric], resamples: int, memory: bool
) -> tuple[list[Metric], int]:
    """Return the metrics, and the smallest number of samples and of data that they can compare.

    Args:
        metrics: As for `evaluate`.
        resamples: As for `evaluate`.
        memory: True if memorisation is measured.

    Raises:
        UnknownNameError, InvalidTypeError, InvalidValueError: A metric is unknown or not callable,
            there are no metrics, or `resamples` is out of range.
    """
    metrics = (metrics,) if isinstance(metrics, str) else metrics
    chosen = [named("metric", metric, METRICS) for metric in metrics]
    for metric in chosen:
        if not callable(metric) or isinstance(metric, type):
            raise InvalidTypeError(f"metrics must be names or callables, got {quoted(metric)}")
    if not chosen and not memory:
        raise InvalidValueError(f"there is nothing to compare; metrics are {', '.join(METRICS)}")
    check_resamples(resamples)
    least = max([2, *(getattr(metric, "least", 2) for metric in chosen)])
    return chosen, 2 * least if resamples else least


def _not_a_score(samples: Source | Callable[..., Tensor]) -> Source:
    """Return the samples; raise InvalidTypeError for a score."""
    if callable(samples):
        raise InvalidTypeError(
            "evaluate takes samples, not a score; draw them first, for example by x = "
            "scoresde.sample(model, sampler='fast', n=1000), or run `scoresde evaluate` on the "
            "folder of the model"
        )
    return samples


def _in_order(name: str, source: Source | None, real: Source) -> Any:
    """Return a source; put the columns of a table in the order of the data's columns."""
    found = None if source is None else opened(name, source)
    if not (isinstance(found, Data) and isinstance(real, Data)):
        return found
    found = in_columns(found, real.columns)
    return found if isinstance(source, Data) else found.units_of(real.transform)


def _in_model_units(x: Tensor, real: Data) -> Tensor:
    """Return samples in model units; convert them if they are in the units of the data."""
    if x.dtype == torch.uint8 or x.is_complex() or x.is_nested or x.shape[1:] != real.event_shape:
        return x
    like = real.batch(slice(_LOOKED_AT))
    return nearer(x, real.transform.forward(x), like) if x.isfinite().all() else x


def _found(
    metric: Metric, x: Tensor, y: Tensor, rows: Tensor, others: Tensor
) -> Mapping[str, Tensor]:
    found = metric(x, y, rows, others)
    if not isinstance(found, Mapping):
        raise InvalidTypeError(f"a metric returns its figures by name, got {type(found).__name__}")
    for name, values in found.items():
        if getattr(values, "shape", None) != (len(rows),):
            raise InvalidTypeError(
                f"a metric returns one number for each of {len(rows)} choices of rows; {name} is "
                f"{quoted(values)}"
            )
    return found


def _map(features: Features | str | None) -> Features | None:
    if not isinstance(features, str):
        return features
    check_name("feature map", features, ("pixels", "inception"))
    return inception() if features == "inception" else None


def _read(
    name: str,
    source: Source,
    *,
    features: Features | None,
    units: Transform,
    progress: bool | None,
    seen: dict[str, tuple[bool, float]],
) -> Tensor:
    parts = []
    total = (
        len(source)
        if isinstance(source, Data)
        else source.shape[:1].numel()
        if isinstance(source, Tensor) and not source.is_nested
        else None
    )
    # show no bar if reading takes less than a second
    with showing(
        total, f"features of {name}", unit="sample", show=progress, delay=1.0
    ) as bar:  # fmt: skip
        for part in features_of(name, source, features, units, seen):
            parts.append(part)
            bar.update(len(part))
    if not parts:
        raise DataError(f"{name} holds no samples")
    sizes = {part.shape[1] for part in parts}
    if len(sizes) > 1 or 0 in sizes:
        raise ShapeError(
            f"the number of features of {name} must be the same in all batches, and at least 1, "
            f"got {sizes}"
        )
    return torch.cat(parts)


def _name(features: Features) -> str:
    return str(getattr(features, "__name__", None) or type(features).__name__)
