"""Write a score to an ONNX file, which other runtimes and languages can evaluate."""

from __future__ import annotations

import os
import warnings
from typing import Any

import torch
from torch import Tensor, nn

from scoresde import checkpoint
from scoresde.checks import door, quoted
from scoresde.errors import InvalidValueError, MissingExtraError
from scoresde.interop.user_units import in_units
from scoresde.score import device_of, evaluating
from scoresde.sde import Classes, facts, process_of

__all__ = ["to_onnx"]


@door
def to_onnx(score: nn.Module, path: str | os.PathLike[str], *, units: bool = False) -> None:
    r"""Write a score to an ONNX file, for batches of any size.

    The inputs are `x` (B, *), `t` (B,) and each condition of the score under its name. All inputs
    are required. A label is int64, with -1 for a missing label; other conditions are float32, with
    NaN for missing numbers. The output is `score`, of the shape of `x`. `x`, `t` and `score` are
    float32, in model units unless `units` is True. A time outside [0, T] gives NaN.

    Args:
        score: A score that is a module, such as a `ScoreModel`, with a known event shape.
        path: The file to write. An existing file is replaced.
        units: True if the states `x`, and so their score, are in the user's units, such as bytes.
            The states at time t then have the noise scale $\sigma_t$ times the scale of the units.

    Raises:
        MissingExtraError: The extra `onnx` is not installed.
        InvalidTypeError: The score is not a module.
        InvalidValueError: The event shape, the SDE or, with `units=True`, the units are unknown; a
            condition is called x, t or score; or the score cannot be exported, for example since
            its Python code branches on values.
        CheckpointError: The file cannot be written.

    Examples:
        Read it elsewhere, here by onnxruntime:

        ```text
        scoresde.interop.to_onnx(model, "model.onnx")
        run = onnxruntime.InferenceSession("model.onnx").run
        (score,) = run(None, {"x": x.numpy(), "t": t.numpy()})
        ```
    """
    try:
        import onnxscript  # noqa: F401
    except ImportError as error:
        raise MissingExtraError.of("onnxscript", "onnx", "an ONNX file") from error
    known = facts(score)
    if known.event_shape is None:
        raise InvalidValueError(
            "an ONNX file needs the shapes of its inputs, but the event shape of this score is "
            "not known; give event_shape= when you make the score"
        )
    kinds = known.conditions or {}
    if taken := {"x", "t", "score"} & kinds.keys():
        raise InvalidValueError(
            "the ONNX file uses the names x, t and score, but conditions of this score have the "
            f"names {', '.join(sorted(taken))}; give the conditions other names"
        )
    device, sde = device_of(score), process_of(score, None)
    x = torch.zeros(2, *known.event_shape, device=device)
    t = torch.full((2,), sde.T, dtype=torch.float32, device=device)
    given = {
        name: torch.zeros(2, dtype=torch.int64, device=device)
        if isinstance(kind, Classes)
        else torch.zeros(2, *kind.shape, device=device)
        for name, kind in kinds.items()
    }
    rows = {0: torch.export.Dim("batch", min=1)}
    shapes = (rows, rows, dict.fromkeys(given, rows))
    with warnings.catch_warnings(), torch.no_grad(), evaluating(score):
        warnings.simplefilter("ignore")  # the exporter warns about its own code
        try:
            graph = torch.export.export(_Called(score, units), (x, t, given), dynamic_shapes=shapes)
            names = ["x", "t", *given]
            program: Any = torch.onnx.export(
                graph, (), dynamo=True, verbose=False, input_names=names, output_names=["score"]
            )
            data = program.model_proto.SerializeToString()
        except Exception as error:
            reason = next(iter(str(error).splitlines()), type(error).__name__)
            raise InvalidValueError(
                f"{quoted(score)} cannot be exported to ONNX: {reason}"
            ) from error
    checkpoint.write_bytes(path, data)


class _Called(nn.Module):
    """Call a score with its conditions in a dictionary, the form that the exporter needs."""

    def __init__(self, score: nn.Module, units: bool) -> None:
        super().__init__()
        self.score = score
        self.called: Any = in_units(score, units)

    def forward(self, x: Tensor, t: Tensor, condition: dict[str, Tensor]) -> Tensor:
        """Return the score, `(B, *)`."""
        value: Tensor = self.called(x, t, condition) if condition else self.called(x, t)
        return value
