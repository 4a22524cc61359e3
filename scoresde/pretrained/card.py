"""Write the model card, the README.md in a model's folder, which the Hugging Face Hub shows.

The card describes the SDE and the network, the transform of the data, the training, the evaluation
and the samples. One line holds a checksum of all other lines. If the checksum is right, the card is
rewritten when the model is written. Otherwise somebody has edited the card, and it is not changed.
"""

from __future__ import annotations

import contextlib
import hashlib
import inspect
import os
import re
import shlex
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from scoresde import checkpoint
from scoresde.errors import CheckpointError, InvalidValueError
from scoresde.pretrained.markdown import block, code, licence_of, plain, quoted
from scoresde.pretrained.private import config_toml
from scoresde.pretrained.rebuild import unknown
from scoresde.pretrained.store import call_text, count_text, entry_of
from scoresde.sde import SDES
from scoresde.sde.words import event_in_words

__all__ = ["check_licence", "is_generated", "text", "write"]

_INLINE = re.compile(r"(?<!\$)\$(?!\$)(.+?)(?<!\$)\$(?!\$)", re.DOTALL)
_PARTS = ("optimiser", "averages", "compute", "keeping")  # the parts of a TrainConfig
_MARK = re.compile(r"^<!-- scoresde ([0-9a-f]{16}):.*-->\n", re.MULTILINE)


def write(folder: Path, config: Mapping[str, Any]) -> None:
    """Write the card of the model in a folder, unless the card there was edited.

    Args:
        folder: The folder. Its files `config.toml`, `samples.png` and `report.json` or
            `report/report.json` are used if they exist.
        config: The description in the model's file.

    Raises:
        CheckpointError: The card cannot be written.
    """
    path = folder / "README.md"
    if not os.path.lexists(path) or is_generated(path):
        found = text(folder, config, name=folder.resolve().name).encode()
        with contextlib.suppress(CheckpointError):
            if checkpoint.read_bytes(path) == found:
                return
        checkpoint.write_bytes(path, found)


def text(folder: Path, config: Mapping[str, Any], *, name: str, licence: str | None = None) -> str:
    """Return the card of the model in a folder.

    Args:
        folder: As for `write`.
        config: The description in the model's file, which is not trusted.
        name: The name by which `from_pretrained` loads the model.
        licence: The name of the weights' licence on the hub, such as "mit"; by default the licence
            in the description.
    """
    head, body = _front_matter(config, licence), "\n".join(_body(config, folder, name))
    mark = f"<!-- scoresde {_digest(head + body)}: rewritten with the model, until it is edited -->"
    return f"{head}{mark}\n{body}"


def check_licence(value: object) -> None:
    """Raise InvalidValueError unless the value can be the name of a licence."""
    if licence_of(value) is None:
        raise InvalidValueError(
            "a licence is given by its name, such as 'mit' or 'cc-by-4.0', got "
            f"{str(value)[:100]!r}"
        )


def is_generated(path: Path) -> bool:
    """Return True if `write` wrote the card and nobody has edited it since."""
    try:
        text = checkpoint.read_bytes(path).decode()
    except (CheckpointError, UnicodeError):
        return False
    mark = _MARK.search(text)
    return mark is not None and mark[1] == _digest(_MARK.sub("", text, count=1))


def _digest(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def _front_matter(config: Mapping[str, Any], licence: str | None) -> str:
    known = licence_of(licence) or licence_of(config.get("license")) or "unknown"
    lines = ["library_name: scoresde", f"license: {quoted(known)}"]
    if len(config["event_shape"]) == 3:
        lines.append("pipeline_tag: unconditional-image-generation")
    tags = ["score-based-generative-model", "diffusion", config["sde"]["type"]]
    lines += ["tags:", *(f"- {quoted(tag)}" for tag in tags)]
    return "\n".join(["---", *lines, "---", ""])


def _body(config: Mapping[str, Any], folder: Path, name: str) -> Iterator[str]:
    event = tuple(config["event_shape"])
    net = config["net"]
    options = net["config"] if isinstance(net.get("config"), Mapping) else {}
    known = _kinds(options, event)
    classes = [f"{n} classes" for n in known.values() if isinstance(n, int)]
    of = f", of {' and of '.join(classes)}" if classes else ""
    yield f"# {plain(name)}\n"
    yield (
        f"A score-based generative model, made with scoresde. A sample is "
        f"{plain(event_in_words(event))}, of shape {plain(event)}{of}.\n"
    )
    if (folder / "samples.png").exists():
        yield "![Samples of the model](samples.png)\n"
    yield "## Use\n"
    yield block("python", _code(name, known, config))
    if name.isprintable() and not unknown(config):
        yield "And from the command line:\n"
        yield block("bash", f"scoresde sample {shlex.quote(name)} --n 16 --out samples.png")
    yield "## Model\n"
    transform, average = config.get("transform"), entry_of(config, "average", "profile")
    yield from _table(
        {
            "SDE": code(call_text(config["sde"])),
            "Predicts": code(config["predicts"]),
            "Network": code(call_text({"type": net["type"], **options})),
            "Conditions": plain(", ".join(_conditions(known))) or None,
            "Parameters": plain(count_text(config.get("parameters", "unknown"))),
            "Average": None if average is None else plain(average),
            "Data": _code_of(config.get("data")),
            "Data transform": _code_of(
                call_text(transform) if isinstance(transform, Mapping) else transform
            ),
        }
    )
    yield from _process(config["sde"]["type"])
    yield from _training(config.get("training"), folder)
    yield from _metrics(folder)


def _code(name: str, known: Mapping[str, int | tuple[int, ...]], config: Mapping[str, Any]) -> str:
    """Return a program that draws 16 samples with every condition, in the units of the data.

    If the units are not known, the samples are in model units.
    """
    given = {
        key: f"torch.arange(16) % {kind}" if isinstance(kind, int) else f"torch.zeros({kind})"
        for key, kind in known.items()
    }
    lines = ["import scoresde", *(["import torch"] if given else []), ""]
    missing = unknown(config)
    lines += [f"{part} = ...  # of your class {plain(kind)}" for part, kind in missing.items()]
    parts = "".join(f", {part}={part}" for part in missing)
    lines.append(f"model = scoresde.ScoreModel.from_pretrained({name!r}{parts})")
    known_units = config.get("transform", {}) is not None
    call = 'x = scoresde.sample(model, sampler="fast", n=16, seed=0'
    call, end = (
        (f"{call}, units=True", "  # in the units of the data") if known_units else (call, "")
    )
    if not given:
        return "\n".join([*lines, f"{call}){end}"])
    lines.append("condition = {")
    lines += [
        f"    {key!r}: {value},{'' if isinstance(known[key], int) else '  # your numbers here'}"
        for key, value in given.items()
    ]
    return "\n".join([*lines, "}", f"{call}, condition=condition){end}"])


def _kinds(options: Mapping[str, Any], event: tuple[int, ...]) -> dict[str, int | tuple[int, ...]]:
    """Return the conditions of a network by name, each a number of classes or a shape."""
    classes, shapes = options.get("num_classes"), options.get("condition")
    named = classes if isinstance(classes, Mapping) else {"label": classes}
    found: dict[str, int | tuple[int, ...]] = {
        str(name): n for name, n in named.items() if type(n) is int and n > 0
    }
    for name, shape in shapes.items() if isinstance(shapes, Mapping) else ():
        sides = (shape, *event[1:]) if type(shape) is int else shape
        if isinstance(sides, list | tuple) and all(type(n) is int for n in sides):
            found[str(name)] = tuple(sides)
    return found


def _conditions(known: Mapping[str, int | tuple[int, ...]]) -> Iterator[str]:
    """Yield a description of each condition that the network takes."""
    for name, kind in known.items():
        yield f"{name} of {kind} classes" if isinstance(kind, int) else f"{name} of shape {kind}"


def _code_of(value: object) -> str | None:
    return None if value is None else code(value)


def _table(rows: Mapping[str, str | None]) -> Iterator[str]:
    yield "| | |\n| --- | --- |"
    yield from (f"| {name} | {value} |" for name, value in rows.items() if value is not None)
    yield ""


def _process(kind: str) -> Iterator[str]:
    """Yield the formulas of the process, taken from the docstring of the SDE's class."""
    if kind not in SDES:
        return
    kernel = r"$\mathcal N(x_t; \alpha_t x_0, \sigma_t^2 I)$"
    formulas = re.split(r"\n\n(?:Args|Examples):", inspect.getdoc(SDES[kind]) or "")[0]
    text = f"The score belongs to data with the perturbation kernel {kernel}.\n\n{formulas}\n"
    yield _INLINE.sub(r"\\\\(\1\\\\)", text)  # the hub's syntax for inline formulas


def _training(training: object, folder: Path) -> Iterator[str]:
    if not isinstance(training, Mapping):
        return
    done = training.get("done", training.get("steps"))
    steps = "Trained" if done is None else f"{plain(count_text(done))} steps"
    yield "## Training\n"
    shown = config_toml(folder)
    if shown is None:
        yield f"{steps} with {code(_called('TrainConfig', training))}.\n"
        return
    yield f"{steps}. To repeat it, get the data and save this as `config.toml`:\n"
    yield block("bash", "scoresde train --config config.toml --out run/")
    summary = "<details><summary>config.toml</summary>"
    yield f"{summary}\n\n{block('toml', shown)}\n</details>\n"


def _called(name: str, fields: Mapping[str, Any]) -> str:
    """Return the Python call that makes a configuration, with the calls that make its parts."""
    named = (
        f"{k}={_called(k.capitalize(), v) if isinstance(v, Mapping) and k in _PARTS else repr(v)}"
        for k, v in fields.items()
    )
    return f"{name}({', '.join(named)})"


def _metrics(folder: Path) -> Iterator[str]:
    """Yield the results of `scoresde evaluate`, if there is a report."""
    found = [
        path
        for path in (folder / "report.json", folder / "report" / "report.json")
        if path.exists()
    ]
    try:
        report = checkpoint.read_json(found[0])
        lines = [
            f"| {plain(name)} | {_interval(figure['samples'])} | {_interval(figure['floor'])} |"
            for name, figure in report["figures"].items()
        ]
        what = (
            f"{report['n']:,} samples, and as many real data as the floor, against other real data"
        )
        where = f"{report['size']:,} features ({plain(report['features'])})"
    except (CheckpointError, LookupError, TypeError, ValueError, AttributeError):
        return  # there is no report, or it has another format
    yield f"## Metrics\n\n{what}, in {where}:\n"
    yield "\n".join(["| | samples | floor |", "| --- | --- | --- |", *lines, ""])


def _interval(estimate: Mapping[str, float]) -> str:
    return f"{estimate['value']:.4g} [{estimate['low']:.4g}, {estimate['high']:.4g}]"
