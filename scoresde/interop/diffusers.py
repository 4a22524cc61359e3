r"""Convert models of diffusers to scores, and back (https://github.com/huggingface/diffusers).

A pipeline of diffusers consists of a network `unet(x, timestep)` and a scheduler. The scheduler's
`alphas_cumprod` is the table $\bar\alpha$ of the training, and its `prediction_type` names the
quantity that the network predicts.
"""

from __future__ import annotations

import functools
import importlib
from collections.abc import Mapping
from types import SimpleNamespace
from typing import Any

import torch
from torch import Tensor, nn

from scoresde.checks import as_numbers, check_integer, check_name, door, quoted
from scoresde.errors import InvalidTypeError, InvalidValueError, MissingExtraError, ShapeError
from scoresde.interop.user_units import in_units
from scoresde.pretrained.rebuild import MOST
from scoresde.score import NetworkScore, from_network, modules
from scoresde.score.conventions import DiffusersNetwork
from scoresde.sde import SDE, VESDE, BetaLadder, Classes, Score, ask, facts, process_of

__all__ = ["EpsilonModel", "from_diffusers", "to_diffusers"]

_PREDICTS = {"epsilon": "eps", "v_prediction": "v", "sample": "x0"}


@door
def from_diffusers(unet: nn.Module, scheduler: Any, **known: Any) -> NetworkScore:
    r"""Return the score of a network of diffusers, for the noise levels of its scheduler.

    The SDE is a `BetaLadder` with the levels of the scheduler's table. Between levels the network
    receives fractional timesteps. The clipping and thresholding of the scheduler are not applied,
    since they are not part of a score. With a `ScoreSdeVeScheduler` the SDE is a `VESDE`.

    Args:
        unet: A network `unet(x, timestep, **condition)`, such as a `UNet2DModel`. It receives the
            condition `label` as `class_labels`, and other conditions under their names, such as
            `encoder_hidden_states`.
        scheduler: A scheduler with a table, such as a `DDPMScheduler`, or a `ScoreSdeVeScheduler`.
        known: Further arguments of `from_network`, which override the configuration of the network.

    Raises:
        InvalidTypeError: The scheduler has no table `alphas_cumprod`, and is not a
            `ScoreSdeVeScheduler`.
        UnknownNameError: The `prediction_type` is not "epsilon", "v_prediction" or "sample".
        InvalidValueError: An entry of the table is not between 0 and 1; a scheduler with
            `rescale_betas_zero_snr` has a last entry of 0.
    """
    sde, predicts, time = _process(scheduler)
    config = getattr(unet, "config", {})
    found: dict[str, Any] = {"event_shape": _event_shape(unet, config)}
    classes = _read(config, "num_class_embeds") or _read(config, "num_embeds_ada_norm")
    if classes is not None:
        found["conditions"] = {"label": Classes(classes)}
    elif _read(config, "cross_attention_dim") is None and config:
        found["conditions"] = {}
    return from_network(DiffusersNetwork(unet), sde, predicts, time, **(found | known))


def _process(scheduler: Any) -> tuple[SDE, str, str]:
    """Return the SDE of a scheduler, the quantity that its network predicts, and the time input."""
    config, bar = getattr(scheduler, "config", {}), getattr(scheduler, "alphas_cumprod", None)
    if isinstance(bar, Tensor):
        predicts = _read(config, "prediction_type") or "epsilon"
        check_name("prediction_type", predicts, _PREDICTS)
        return _ladder(bar), _PREDICTS[predicts], "place"
    low, high, snr = (_read(config, name) for name in ("sigma_min", "sigma_max", "snr"))
    if None not in (low, high, snr):
        return VESDE(low, high), "score", "sigma"
    raise InvalidTypeError(
        f"{quoted(type(scheduler).__name__)} has no table alphas_cumprod; take the scheduler of "
        "the training, such as DDPMScheduler; a network of flow matching in diffusers is "
        'from_network(net, FlowSDE(), "flow", lambda sde, t: 1000 * t)'
    )


def _read(config: Any, name: str) -> Any:
    return config.get(name) if isinstance(config, Mapping) else getattr(config, name, None)


def _event_shape(unet: nn.Module, config: Any) -> tuple[int, ...] | None:
    """Return the shape of a sample from the configuration, or None if it is not given there."""
    channels, size = _read(config, "in_channels"), _read(config, "sample_size")
    if channels is None or size is None:
        return None
    if isinstance(size, int):
        # the number of spatial axes follows from the rank of a convolution's weight
        kernel = next((p for p in unet.parameters() if p.ndim >= 3), torch.empty(0, 0, 0, 0))
        size = (size,) * (kernel.ndim - 2)
    return (channels, *size)


def _ladder(bar: Tensor) -> BetaLadder:
    """Return the process with this table of alpha bar."""
    bar = bar.detach().cpu().double()
    if not ((bar > 0) & (bar < 1)).all():
        raise InvalidValueError(
            "the scheduler's alphas_cumprod must lie in (0, 1), since at 0 the state is pure "
            "noise; make the scheduler without rescale_betas_zero_snr, or leave out the last level"
        )
    betas = 1 - bar / torch.cat([bar.new_ones(1), bar[:-1]])
    return BetaLadder(tuple(betas.tolist()))


class EpsilonModel(nn.Module):
    r"""Predict noise from a score, with the interface of diffusers: `unet(x, timestep).sample`.

    `to_diffusers` makes such a model.

    Attributes:
        ladder: The levels, a variance-preserving process.
        config: `in_channels` and `sample_size`, which pipelines read.
    """

    def __init__(self, score: Score, ladder: BetaLadder) -> None:
        super().__init__()
        self.ladder = ladder
        self._own = process_of(score, None)
        self._ask = functools.partial(ask, score)
        # registered here, so that the networks change their device and mode with this module
        self.networks = nn.ModuleList(modules(score))
        channels, *sides = facts(score).event_shape or (None,)
        size = sides[0] if len(set(sides)) == 1 else tuple(sides)
        self.config = SimpleNamespace(in_channels=channels, sample_size=size)

    @property
    def dtype(self) -> torch.dtype:
        """Return the dtype of the networks, or float32 if there are none."""
        return next((p.dtype for p in self.parameters()), torch.float32)

    @property
    def device(self) -> torch.device:
        """Return the device of the networks, or the CPU if there are none."""
        return next((p.device for p in self.parameters()), torch.device("cpu"))

    def forward(
        self,
        sample: Tensor,
        timestep: Tensor | float,
        class_labels: Tensor | None = None,
        *,
        return_dict: bool = True,
        **condition: Tensor,
    ) -> Any:
        r"""Return the predicted noise $-\sigma_t \nabla\log p_t(x)$ as `.sample`, or in a tuple.

        Args:
            sample: States `(B, *)` with $\alpha^2 + \sigma^2 = 1$.
            timestep: The number of the level, `()` or `(B,)`.
            class_labels: The condition `label`.
            return_dict: True returns an object with the attribute `sample`, and False a tuple.
            condition: Further conditions by name.

        Raises:
            InvalidValueError: `timestep` is not between 0 and the number of the last level.
            ShapeError: `timestep` has another shape.
        """
        given = condition if class_labels is None else {"label": class_labels, **condition}
        last = len(self.ladder.betas) - 1
        number = as_numbers("timestep", timestep, dtype=torch.float64, device="cpu").flatten()
        if len(number) not in {1, len(sample)}:
            raise ShapeError(
                f"timestep must be a number or (B,) = ({len(sample)},), got {tuple(number.shape)}"
            )
        if not ((number >= 0) & (number <= last)).all():
            raise InvalidValueError(
                f"timestep must lie from 0 to {last}, got {quoted(timestep)}; take the scheduler "
                "that to_diffusers returned, or make another one from its config"
            )
        level = number / last
        log_snr = self.ladder.log_snr(level.expand(len(sample)))
        u = self._own.time(log_snr).clamp(self._own.eps, self._own.T)
        alpha, sigma = self._own.at(u, sample)
        scale = (alpha**2 + sigma**2).sqrt()
        time = u.to(sample.device, torch.promote_types(sample.dtype, torch.float32))
        noise = -sigma * self._ask(scale * sample, time, given or None)
        return SimpleNamespace(sample=noise) if return_dict else (noise,)


@door
def to_diffusers(
    score: Score, levels: int = 1000, *, units: bool = False
) -> tuple[EpsilonModel, Any]:
    r"""Convert a score to a model of diffusers and a `DDIMScheduler`.

    The levels are the levels of the score's SDE; if the SDE has none, they are evenly spaced in the
    score's time. To get another scheduler, call its `from_config`, as in
    `EulerDiscreteScheduler.from_config(scheduler.config)`. The table of the returned scheduler is
    exact. diffusers computes the tables of other schedulers in float32, with errors near 1e-4 at
    the lowest levels.

    Args:
        score: A score whose `facts` have an SDE. If the SDE is not variance preserving, the states
            of diffusers are $x / \sqrt{\alpha^2 + \sigma^2}$.
        levels: The number of levels, if the SDE has none.
        units: True if states are in the user's units, such as bytes. Pipelines of diffusers assume
            images in [-1, 1] instead.

    Raises:
        MissingExtraError: diffusers is not installed.
        InvalidValueError: The score's `facts` have no SDE, or, with `units=True`, their
            transform is unknown or has several scales; or `levels` is below 2 or above 100,000.
    """
    score = in_units(score, units)
    process = process_of(score, None)
    if check_integer("levels", levels, 2) > MOST:
        raise InvalidValueError(f"levels must be at most {MOST:,}, got {levels:,}")
    if process.levels is None:
        t = torch.linspace(process.eps, process.T, levels, dtype=torch.float64)
    else:
        t = process.times().flip(0)
    ladder = _ladder(torch.sigmoid(process.log_snr(t)))
    try:
        diffusers: Any = importlib.import_module("diffusers")
    except ImportError as error:
        raise MissingExtraError.of("diffusers", "peers", "a scheduler of diffusers") from error
    scheduler = diffusers.DDIMScheduler(
        num_train_timesteps=len(ladder.betas), trained_betas=list(ladder.betas), clip_sample=False
    )
    scheduler.alphas_cumprod = torch.sigmoid(process.log_snr(t))
    return EpsilonModel(score, ladder), scheduler
