r"""Embed the noise scale and the conditions of a network in one vector.

A network receives $c = \tfrac14 \log(\sigma/\alpha)$, one number per sample in about $[-2, 2]$
(the `c_noise` of Karras et al. 2022, table 1, arXiv 2206.00364). An embedding turns this number
into many smooth functions of it. A small MLP maps these to a vector. The embeddings of the labels
and a linear map of the vectors are added, and the sum modulates every block.

Cosines and sines are computed in float32 or float64, whatever the precision of the network, since
half precision has too few digits: bfloat16 rounds a phase of 40 to a multiple of 0.25.
"""

import math
from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import Any, Self

import torch
from torch import Tensor, nn

from scoresde.checks import check_range, seeded, typed
from scoresde.errors import InvalidTypeError, InvalidValueError
from scoresde.nn.conditions import flagged

_NO_ROW = 2**31
_NONE: Mapping[str, Tensor | None] = MappingProxyType({})


class Waves(nn.Module):
    """Map `c` to cosines and sines with fixed frequencies, which stay float32 after `net.half()`.

    The frequencies are float32 under every default dtype of torch, so that they do not change.
    """

    frequencies: Tensor

    def __init__(self, frequencies: Tensor) -> None:
        super().__init__()
        self.register_buffer("frequencies", frequencies)

    def forward(self, c: Tensor) -> Tensor:
        """Map `(B,)` to `(B, features)`."""
        phase = c[:, None] * self.frequencies  # c in half precision is promoted to float32
        return torch.cat([phase.cos(), phase.sin()], dim=-1)

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> Self:
        precise = self.frequencies
        # this function has no type annotations in some releases of torch
        convert: Any = super()._apply
        convert(fn, recurse)
        if self.frequencies.dtype != precise.dtype:
            self.frequencies = precise.to(self.frequencies.device)
        return self


class Fourier(Waves):
    r"""Map `c` to Fourier features $[\cos 2\pi f c,\ \sin 2\pi f c]$ with $f \sim N(0, s^2)$ fixed.

    Source: Tancik et al. 2020 (arXiv 2006.10739); for diffusion Song et al. 2021 (2011.13456).
    The frequencies are drawn from a separate generator, so that building a network neither reads
    nor changes torch's global generator.

    Args:
        features: The length of the embedding, even.
        scale: The standard deviation $s$ of the frequencies. The range of $c$ has a width of about
            4.
        seed: The seed of the frequencies.

    Raises:
        InvalidValueError: `features` is odd, or an argument is out of range.
    """

    @typed
    def __init__(self, features: int, *, scale: float = 1.0, seed: int = 0) -> None:
        check_range("scale", scale, "(0, inf)")
        like = torch.empty(_half(features), dtype=torch.float32, device="cpu")
        super().__init__(scale * like.normal_(generator=seeded(seed)))

    def forward(self, c: Tensor) -> Tensor:
        """Map `(B,)` to `(B, features)`."""
        return super().forward(2 * math.pi * _precise(c))


class Sinusoidal(Waves):
    r"""Map `c` to sines and cosines of geometric frequencies.

    The frequencies lie between $\tfrac12$ and 50 radians per unit of c.

    Source: Vaswani et al. 2017, section 3.5 (arXiv 1706.03762). Ho et al. 2020 (2006.11239) embed
    the step number 0 ... 1000 in this way. Here the frequencies fit the range of $c$: the sine of
    the lowest frequency is monotone for $|c| < \pi$, and the highest resolves differences of 1/50.

    Args:
        features: The length of the embedding, even.

    Raises:
        InvalidValueError: `features` is odd or below 2.
    """

    @typed
    def __init__(self, features: int) -> None:
        ends = math.log10(0.5), math.log10(50.0)
        super().__init__(torch.logspace(*ends, _half(features), dtype=torch.float32))


class LogSNR(nn.Module):
    r"""Return the number $c = -\tfrac18 \log \mathrm{SNR}$ as the only feature.

    Source: Kingma et al. 2021 (arXiv 2107.00630), who condition on the log-SNR.
    """

    def forward(self, c: Tensor) -> Tensor:
        """Map `(B,)` to `(B, 1)`."""
        return _precise(c)[:, None]


class Embedding(nn.Module):
    r"""Compute the embedding of $c$, the labels and the vectors, which modulates a network.

    The embedding is silu(MLP(wave(c)) + embeddings of the labels + a linear map of the vectors).
    The linear map also receives a flag for each entry of a vector: 1 if the entry is known, else 0.

    Args:
        kind: `"fourier"`, `"sinusoidal"` or `"log_snr"`.
        features: The length of the embedding.
        classes: The number $K$ of classes of each label, by name. The label -1, or no label, gives
            the unconditional score, which is trained by hiding labels at random (Ho & Salimans
            2022, arXiv 2207.12598).
        vectors: The length of each vector, by name.
        seed: Seed of the random frequencies of `"fourier"`.

    Raises:
        InvalidValueError: `kind` is unknown, labels are not `(B,)`, or a label lies outside
            $-1 \ldots K - 1$. On other devices than the CPU such a label raises an error of torch,
            since this check would wait for the device.
        InvalidTypeError: Labels are not integers, or vectors are not floating point.
        ShapeError: A vector has another length or number of rows.
    """

    def __init__(
        self,
        kind: str,
        features: int,
        *,
        classes: Mapping[str, int] | None = None,
        vectors: Mapping[str, int] | None = None,
        seed: int = 0,
    ) -> None:
        super().__init__()
        waves = 64
        self.wave: nn.Module
        if kind == "fourier":
            self.wave = Fourier(waves, seed=seed)
        elif kind == "sinusoidal":
            self.wave = Sinusoidal(waves)
        elif kind == "log_snr":
            self.wave, waves = LogSNR(), 1
        else:
            raise InvalidValueError(
                f"unknown embedding {kind!r}; choose from 'fourier', 'sinusoidal', 'log_snr'"
            )
        self.mix = nn.Sequential(
            nn.Linear(waves, features), nn.SiLU(), nn.Linear(features, features)
        )
        self.classes, self.vectors = dict(classes or {}), dict(vectors or {})
        rows, length = _rows(self.classes), sum(self.vectors.values())
        # one table for all labels; after the rows for the classes of a label comes a row for the
        # case that this label is missing
        self.label = nn.Embedding(rows, features) if rows else None
        self.vector = nn.Linear(2 * length, features) if length else None

    def forward(self, c: Tensor, condition: Mapping[str, Tensor | None] = _NONE) -> Tensor:
        """Map `c` `(B,)` and the conditions to `(B, features)`."""
        with torch.autocast(c.device.type, enabled=False):
            y: Tensor = self.mix(self.wave(c).to(next(self.mix.parameters()).dtype))
            if self.vector is not None:
                parts = [
                    flagged(name, condition.get(name), y, (n,)) for name, n in self.vectors.items()
                ]
                y = y + self.vector(torch.cat(parts, dim=1))
        if self.label is not None:
            first = 0
            for name, n in self.classes.items():
                y = y + self.label(first + _indices(name, condition.get(name), c, n))
                first += n + 1
        return nn.functional.silu(y)

    def grow(self, classes: Mapping[str, int]) -> None:
        """Add classes or new labels; existing classes keep their embeddings."""
        parts, first = {}, 0
        for name, n in self.classes.items():
            if classes.get(name, n) < n:
                raise InvalidValueError(
                    f"the network already has {n} classes of {name}, more than {classes[name]}; "
                    "keep all classes, even if some do not occur"
                )
            assert self.label is not None  # there are classes, so there is a table
            rows = self.label.weight.detach()[first : first + n + 1]
            parts[name] = torch.cat([rows, rows[-1:].expand(classes.get(name, n) - n, -1)])
            first += n + 1
        like: Any = self.mix[2].weight
        for name in classes.keys() - parts.keys():
            parts[name] = like.new_zeros(classes[name] + 1, len(like))
        self.classes = {name: len(parts[name]) - 1 for name in sorted(parts)}
        table = torch.cat([parts[name] for name in self.classes])
        frozen = not (like if self.label is None else self.label.weight).requires_grad
        self.label = nn.Embedding(len(table), table.shape[1], _weight=table, _freeze=frozen)


def _rows(classes: Mapping[str, int]) -> int:
    return sum(n + 1 for n in classes.values())


def _indices(name: str, label: Tensor | None, c: Tensor, classes: int) -> Tensor:
    """Return the rows in the label's table, int64 `(B,)`; a missing label has the last row."""
    if label is None:
        return torch.full(c.shape, classes, dtype=torch.long, device=c.device)
    if label.is_floating_point() or label.is_complex() or label.dtype == torch.bool:
        raise InvalidTypeError(f"{name} must be integers, got {label.dtype}; pass {name}.long()")
    if label.shape != c.shape:
        raise InvalidValueError(
            f"expected one {name} per sample, shape {tuple(c.shape)}, got {tuple(label.shape)}"
        )
    label = label.long()
    if label.device.type != "cpu" or torch.compiler.is_compiling():
        # labels on a device are not read; a label out of range is replaced by a row outside the
        # table, so that the lookup raises an error
        label = torch.where((label < -1) | (label >= classes), _NO_ROW, label)
    elif label.numel():
        low, high = int(label.min()), int(label.max())
        if not (-1 <= low and high < classes):
            raise InvalidValueError(
                f"{name} must lie in 0 ... {classes - 1}, or be -1 if it is missing; got values "
                f"from {low} to {high}"
            )
    return torch.where(label < 0, classes, label)


def _half(features: int) -> int:
    if features < 2 or features % 2:
        raise InvalidValueError(
            "an embedding by sines and cosines needs an even number of features, at least 2, got "
            f"{features}"
        )
    return features // 2


def _precise(x: Tensor) -> Tensor:
    return x.to(torch.promote_types(x.dtype, torch.float32))
