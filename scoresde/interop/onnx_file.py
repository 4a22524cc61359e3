"""Write a score as an ONNX file, which other runtimes and languages evaluate."""

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
    r"""Write a score as an ONNX file, with batches of any size.

    The inputs are `x` (B, *), `t` (B,) and each condition of the score under its own name, all of
    them required: labels are int64, -1 where one is missing, and other conditions float32, NaN
    where one is missing. The output is `score`, of the shape of `x`. All numbers are float32, and
    in the units of the model unless `units` is True. A time outside [0, T] gives NaN.

    Args:
        score: A score that is a module, as a `ScoreModel` is, and whose event shape is known.
        path: The file to write. An existing file is replaced.
        units: True for states of the user's numbers, such as bytes, and for their score; the noise
            scale is then that of the model times the scale of these numbers.

    Raises:
        MissingExtraError: The extra `onnx` is not installed.
        InvalidTypeError: The score is not a module.
        InvalidValueError: Its event shape is not known, or its units are not, or it has no ONNX
            graph: Python code that depends on values cannot be written as one.
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
            "the shapes of an ONNX file's inputs are needed, and the event shape of this score is "
            "not known; give event_shape= when you make it"
        )
    kinds = known.conditions or {}
    if taken := {"x", "t", "score"} & kinds.keys():
        raise InvalidValueError(
            f"the inputs and the output of an ONNX file are x, t and score, and conditions of this "
            f"score have the names {', '.join(sorted(taken))}; give them other names"
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
        warnings.simplefilter("ignore")  # of the exporter about itself
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
                f"no ONNX file can be written of {quoted(score)}: {reason}"
            ) from error
    checkpoint.write_bytes(path, data)


class _Called(nn.Module):
    """Call a score with a dictionary of conditions; its weights have names that begin alike."""

    def __init__(self, score: nn.Module, units: bool) -> None:
        super().__init__()
        self.score = score
        self.called: Any = in_units(score, units)

    def forward(self, x: Tensor, t: Tensor, condition: dict[str, Tensor]) -> Tensor:
        """Return the score, `(B, *)`."""
        value: Tensor = self.called(x, t, condition) if condition else self.called(x, t)
        return value
