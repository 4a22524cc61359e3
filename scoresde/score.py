r"""Scores: a network with its preconditioning, and other people's functions.

A score is any callable `(x, t) -> ` $\nabla\log p_t(x)$. `ScoreModel` makes one of a network
$F$ whose output has one of six meanings. Each is affine in the (centred) state
$\tilde x = x - \alpha\mu$ and in $F$, so that the score and the denoiser are

$$ \nabla\log p_t(x) = a_s \tilde x + b_s F, \qquad E[x_0 | x_t] = \mu + a_d \tilde x + b_d F $$

with coefficients that are simplified by hand: neither is computed from the other through a
division by $\sigma^2$.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, replace
from pathlib import Path
from types import MappingProxyType
from typing import Any, NamedTuple, Self

import torch
from torch import Tensor, nn

from scoresde import checkpoint
from scoresde import nn as networks
from scoresde import sde as sdes
from scoresde.errors import (
    CheckpointError,
    InvalidTypeError,
    InvalidValueError,
    ShapeError,
    UnknownNameError,
)
from scoresde.sde import SDE, Moments, ScoreFunction, expand

__all__ = [
    "PARAMETERIZATIONS",
    "Affine",
    "Bridge",
    "Conditional",
    "DenoiserScore",
    "ScoreModel",
    "from_denoiser",
    "load",
    "locate",
]

_MODELS = Path(__file__).parent / "models"
_SDES = {
    kind.__name__: kind
    for kind in (
        sdes.VESDE,
        sdes.VPSDE,
        sdes.SubVPSDE,
        sdes.NCSNLadder,
        sdes.BetaLadder,
        sdes.CosineSDE,
        sdes.EDMSDE,
        sdes.FlowSDE,
    )
}
_NETS = {kind.__name__: kind for kind in (networks.UNet, networks.MLP)}


class Affine(NamedTuple):
    """The coefficients of a network's output: score and denoiser as functions of (x, F)."""

    score_x: Tensor
    score_f: Tensor
    denoise_x: Tensor
    denoise_f: Tensor


def _edm(sde: SDE, t: Tensor, var: float) -> Affine:
    a, s = sde.alpha(t), sde.sigma(t)
    total = a**2 * var + s**2
    root = math.sqrt(var) / total.sqrt()
    return Affine(-1 / total, a * root / s, a * var / total, s * root)


def _eps(sde: SDE, t: Tensor, var: float) -> Affine:
    a, s = sde.alpha(t), sde.sigma(t)
    return Affine(torch.zeros_like(t), -1 / s, 1 / a, -s / a)


def _x0(sde: SDE, t: Tensor, var: float) -> Affine:
    a, s = sde.alpha(t), sde.sigma(t)
    return Affine(-1 / s**2, a / s**2, torch.zeros_like(t), torch.ones_like(t))


def _v(sde: SDE, t: Tensor, var: float) -> Affine:
    a, s = sde.alpha(t), sde.sigma(t)
    total = a**2 + s**2
    return Affine(-1 / total, -a / (s * total), a / total, -s / total)


def _flow(sde: SDE, t: Tensor, var: float) -> Affine:
    a, s = sde.alpha(t), sde.sigma(t)
    f, g2 = sde.coefficients(t)
    # alpha sigma' - sigma alpha', with alpha' = f alpha and sigma' = f sigma + g^2 / (2 sigma)
    wronskian = a * g2 / (2 * s)
    slope = f * s + g2 / (2 * s)
    return Affine(f * a / (s * wronskian), -a / (s * wronskian), slope / wronskian, -s / wronskian)


def _score(sde: SDE, t: Tensor, var: float) -> Affine:
    a, s = sde.alpha(t), sde.sigma(t)
    return Affine(torch.zeros_like(t), 1 / s, 1 / a, s / a)


PARAMETERIZATIONS: Mapping[str, Callable[[SDE, Tensor, float], Affine]] = MappingProxyType(
    {"edm": _edm, "eps": _eps, "x0": _x0, "v": _v, "flow": _flow, "score": _score}
)
r"""What a network's output F means, by name.

- `edm`: the unit-variance residual of Karras et al. (2022), eq. 7, arXiv:2206.00364, applied to
  $x/\alpha$ at the noise level $\sigma/\alpha$.
- `eps`: the noise $\varepsilon$ (Ho et al. 2020, arXiv:2006.11239).
- `x0`: the (centred) data.
- `v`: $\alpha\varepsilon - \sigma x_0$ (Salimans & Ho 2022, arXiv:2202.00512).
- `flow`: the velocity $\dot\alpha x_0 + \dot\sigma\varepsilon$ (Lipman et al. 2023, arXiv:2210.02747).
- `score`: $\sigma\,\nabla\log p_t$ (Song & Ermon 2019, arXiv:1907.05600).
"""


class ScoreModel(nn.Module):
    r"""A network with its preconditioning: a score that knows its SDE, event shape and data's moments.

    The network sees the centred state scaled to unit variance,
    $(x - \alpha\mu) / \sqrt{\alpha^2 v + \sigma^2}$, and the number
    $c = \tfrac14 \log(\sigma / \alpha)$ of shape `(B,)`.

    Args:
        net: A module `net(x, c, **condition)` with output of the shape of `x`.
        sde: The process it is a score of.
        event_shape: The shape of one sample, without the batch.
        parameterization: What the output means, a key of `PARAMETERIZATIONS`.
        data: Mean and variance of the data; standardised data is assumed by default.

    Attributes:
        autocast: A dtype under which the network (and nothing else) runs in autocast, or `None`.
        steps: The number of sampling steps that suits this model, or `None`; saved with it.

    Raises:
        UnknownNameError: The parameterisation is unknown.
    """

    data_mean: Tensor
    data_var: Tensor

    def __init__(
        self,
        net: nn.Module,
        sde: SDE,
        event_shape: Sequence[int],
        parameterization: str = "edm",
        data: Moments | None = None,
    ) -> None:
        super().__init__()
        if parameterization not in PARAMETERIZATIONS:
            raise UnknownNameError.of("parameterization", parameterization, PARAMETERIZATIONS)
        data = Moments(0.0, var=1.0) if data is None else data
        self.net = net
        self.sde = sde
        self.event_shape = tuple(event_shape)
        self.parameterization = parameterization
        self.autocast: torch.dtype | None = None
        self.steps: int | None = None
        var = data.var if data.cov is None else data.cov.diagonal().reshape(self.event_shape)
        for name, value in (("data_mean", data.mean), ("data_var", var)):
            value = torch.as_tensor(value, dtype=torch.float32).clone()
            if value.ndim and value.shape != self.event_shape:
                raise ShapeError(
                    f"{name} must be a number or have the event shape {self.event_shape}, "
                    f"got {tuple(value.shape)}"
                )
            self.register_buffer(name, value)
        self._scale = float(self.data_var.double().mean())
        if not self._scale > 0:
            raise InvalidValueError("the data's variance must be positive")

    @property
    def data(self) -> Moments:
        """The data's moments: mean, and variance per dimension."""
        return Moments(self.data_mean, var=self.data_var)

    def forward(
        self, x: Tensor, t: Tensor | float, condition: Mapping[str, Tensor] | None = None
    ) -> Tensor:
        r"""The score $\nabla\log p_t(x)$ of shape `(B, *)`.

        Args:
            x: States `(B, *event_shape)`.
            t: Time `()` or `(B,)`, with $\sigma_t > 0$.
            condition: What the network takes beside them, such as `{"label": labels}`.
        """
        coefficients, centred, out = self._network(x, t, condition)
        score = expand(coefficients.score_x, out) * centred
        return (score + expand(coefficients.score_f, out) * out).to(x.dtype)

    def denoise(
        self, x: Tensor, t: Tensor | float, condition: Mapping[str, Tensor] | None = None
    ) -> Tensor:
        r"""$E[x_0 | x_t]$ of shape `(B, *)`; the arguments are those of `forward`."""
        coefficients, centred, out = self._network(x, t, condition)
        x0 = expand(coefficients.denoise_x, out) * centred
        return (self.data_mean + x0 + expand(coefficients.denoise_f, out) * out).to(x.dtype)

    def _network(
        self, x: Tensor, t: Tensor | float, condition: Mapping[str, Tensor] | None
    ) -> tuple[Affine, Tensor, Tensor]:
        """The coefficients at t, the centred state, and the network's output."""
        if x.shape[1:] != self.event_shape:
            raise ShapeError(
                f"this model takes states (B, {', '.join(map(str, self.event_shape))}), "
                f"got shape {tuple(x.shape)}"
            )
        time = self.sde._times(t)
        sigma = self.sde.sigma(time)
        if not (sigma > 0).all():
            raise InvalidValueError(
                f"the score is singular where sigma is 0, as at t = {time}; "
                f"stay at or above eps = {self.sde.eps}"
            )
        alpha = self.sde.alpha(time)
        var = self._scale
        wide = x.to(torch.promote_types(x.dtype, torch.float32))
        centred = wide - expand(alpha, wide) * self.data_mean
        scaled = expand((alpha**2 * var + sigma**2).rsqrt(), wide) * centred
        c = expand(0.25 * (sigma / alpha).log(), wide).flatten().expand(len(x))
        dtype = next((p.dtype for p in self.net.parameters()), wide.dtype)
        with torch.autocast(x.device.type, self.autocast, enabled=self.autocast is not None):
            out = self.net(scaled.to(dtype), c.to(dtype), **(condition or {}))
        return PARAMETERIZATIONS[self.parameterization](self.sde, time, var), centred, out.to(wide)

    # Persistence

    def save_pretrained(
        self, folder: str | Path, *, dtype: torch.dtype | None = None, **meta: Any
    ) -> None:
        """Write `model.safetensors`, which holds the whole model, and `config.json`, for people.

        Args:
            folder: Made if it is missing.
            dtype: The dtype of the stored network; `None` keeps its own.
            meta: Anything JSON can hold that should travel with the model.

        Raises:
            CheckpointError: The folder cannot be written.
        """
        config = {
            "sde": {"type": type(self.sde).__name__, **_fields(self.sde)},
            "net": {"type": type(self.net).__name__, "config": getattr(self.net, "config", None)},
            "event_shape": list(self.event_shape),
            "parameterization": self.parameterization,
            "steps": self.steps,
            **meta,
        }
        tensors = {
            name: value.to(dtype) if dtype and name.startswith("net.") else value
            for name, value in self.state_dict().items()
        }
        folder = Path(folder)
        checkpoint.save_tensors(folder / "model.safetensors", tensors, config)
        checkpoint.write_json(folder / "config.json", config)

    @classmethod
    def from_pretrained(
        cls, folder: str | Path, *, net: nn.Module | None = None, sde: SDE | None = None
    ) -> Self:
        """Read a model that `save_pretrained` wrote, or one of the package's own by name.

        Args:
            folder: The folder, or a name such as `"mnist"`.
            net: The network, where it is of a class of your own; its weights are overwritten.
            sde: The SDE, where it is of a class of your own.

        Raises:
            CheckpointError: There is no such model, or it is damaged or foreign.
        """
        path = locate(folder)
        tensors, config = checkpoint.load_tensors(path)
        try:
            net = _build(_NETS, "net", config["net"].get("config"), config) if net is None else net
            fields = {k: v for k, v in config["sde"].items() if k != "type"}
            sde = _build(_SDES, "sde", fields, config) if sde is None else sde
            data = Moments(tensors["data_mean"], var=tensors["data_var"])
            model = cls(net, sde, config["event_shape"], config["parameterization"], data)
            model.steps = config["steps"]
        except (KeyError, TypeError) as error:
            raise CheckpointError(f"{path} is no model of scoresde: {error!r}") from error
        checkpoint.load_state(model, tensors, source=str(path))
        return model.eval()


def locate(folder: str | Path) -> Path:
    """The file of a model: in a folder, itself a file, or one of the package's own by name.

    Raises:
        CheckpointError: There is no such model.
    """
    path = Path(folder)
    path = path if path.exists() else _packaged(str(folder))
    return path / "model.safetensors" if path.is_dir() else path


def load(name: str) -> ScoreModel:
    """A model that the package carries: `load("mnist")` draws 28x28 handwritten digits.

    Raises:
        CheckpointError: There is none of that name.
    """
    return ScoreModel.from_pretrained(_packaged(name))


def _packaged(name: str) -> Path:
    names = sorted(p.name for p in _MODELS.glob("*") if p.is_dir())
    if name not in names:
        raise CheckpointError(
            f"there is no folder {name!r} and no packaged model of that name; "
            f"packaged are {', '.join(names) or 'none'}"
        )
    return _MODELS / name


class Conditional:
    """A score model with its condition bound: a score of `(x, t)` alone.

    Args:
        model: A score that takes `condition`.
        condition: A tensor `(B, ...)` for each name, one row for each sample.
    """

    def __init__(self, model: ScoreModel, condition: Mapping[str, Tensor]) -> None:
        self.model = model
        self.condition = condition

    def __call__(self, x: Tensor, t: Tensor) -> Tensor:
        """The score `(B, *)`."""
        return self.model(x, t, self.condition)  # type: ignore[no-any-return]

    def denoise(self, x: Tensor, t: Tensor) -> Tensor:
        """$E[x_0 | x_t]$ of shape `(B, *)`."""
        return self.model.denoise(x, t, self.condition)


class DenoiserScore:
    r"""A denoiser as a score: $\nabla\log p_t(x) = (\alpha D(x, t) - x) / \sigma^2$.

    Vincent (2011); Efron (2011), Tweedie's formula.
    """

    def __init__(self, denoiser: ScoreFunction, sde: SDE) -> None:
        self.model = self.denoise = denoiser
        self.sde = sde

    def __call__(self, x: Tensor, t: Tensor) -> Tensor:
        """The score `(B, *)`."""
        time = self.sde._times(t)
        alpha, var = expand(self.sde.alpha(time), x), expand(self.sde.sigma(time) ** 2, x)
        return (alpha * self.denoise(x, t) - x) / var


def from_denoiser(denoiser: ScoreFunction, sde: SDE) -> DenoiserScore:
    r"""The score of a denoiser `D(x, t)` $= E[x_0 | x_t]$, under `sde`.

    Args:
        denoiser: A callable; `x` and its result are `(B, *)`, `t` is `(B,)`.
        sde: The process whose noise it removes.
    """
    return DenoiserScore(denoiser, sde)


class Bridge:
    r"""A score of one SDE as a score of another: the same noise level, rescaled.

    If $\sigma'_u / \alpha'_u = \sigma_t / \alpha_t$, then $y = x\,\alpha'_u / \alpha_t$ has the law $p'_u$, so
    $\nabla\log p_t(x) = \frac{\alpha'_u}{\alpha_t} \nabla\log p'_u(y)$ (Song et al. 2021, appendix B;
    Karras et al. 2022, eq. 20). Its noise levels must cover those it is asked for.

    Args:
        model: A score that knows its own SDE.
        sde: The SDE to sample with.
    """

    def __init__(self, model: ScoreModel, sde: SDE) -> None:
        self.model = model
        self.sde = sde
        self.event_shape = model.event_shape
        self.data = model.data
        self.steps = model.steps

    def __call__(
        self, x: Tensor, t: Tensor, condition: Mapping[str, Tensor] | None = None
    ) -> Tensor:
        """The score `(B, *)`; the arguments are those of a `ScoreModel`."""
        ratio, u = self._matched(t)
        return expand(ratio, x) * self.model(expand(ratio, x) * x, u, condition)

    def denoise(
        self, x: Tensor, t: Tensor, condition: Mapping[str, Tensor] | None = None
    ) -> Tensor:
        """$E[x_0 | x_t]$ of shape `(B, *)`."""
        ratio, u = self._matched(t)
        return self.model.denoise(expand(ratio, x) * x, u, condition)

    def _matched(self, t: Tensor) -> tuple[Tensor, Tensor]:
        """The ratio of the signal scales, and the time of the model's own SDE."""
        own, time = self.model.sde, self.sde._times(t)
        u = own.time(self.sde.log_snr(time))
        # t may have been rounded to float32
        room = 1e-6 * own.T
        if not ((u >= own.eps - room) & (u <= own.T + room)).all():
            raise InvalidValueError(
                f"t = {time} of {type(self.sde).__name__} has a noise level outside "
                f"[eps, T] = [{own.eps}, {own.T}] of the model's {type(own).__name__}; "
                "give the SDE an eps and a T within the model's noise levels"
            )
        u = u.clamp(own.eps, own.T)
        return own.alpha(u) / self.sde.alpha(time), u


def check_sde(model: Any, sde: SDE) -> None:
    """A model that knows its SDE is sampled with no other: only `levels` and `eps` may differ.

    Raises:
        InvalidValueError: The two differ in more than that.
    """
    own = getattr(model, "sde", None)
    if own is None or own == sde:
        return
    if type(own) is type(sde) and "levels" in _fields(own):
        if replace(sde, levels=own.levels, eps=own.eps) == own:
            return
    raise InvalidValueError(
        f"this score belongs to {own}, not to {sde}; "
        "sample with `model.sde`, or with `Bridge(model, sde)` as the model"
    )


def _fields(sde: SDE) -> dict[str, Any]:
    """The constructor's arguments of an SDE."""
    init = {name for name, field in sde.__dataclass_fields__.items() if field.init}
    return {name: value for name, value in asdict(sde).items() if name in init}


def _build(table: Mapping[str, Any], what: str, fields: Any, config: Mapping[str, Any]) -> Any:
    kind = config[what]["type"]
    if kind not in table:
        raise CheckpointError(
            f"this model has a {what} of the class {kind}, which is not scoresde's; "
            f"pass it: from_pretrained(folder, {what}=...)"
        )
    return table[kind](**fields)
