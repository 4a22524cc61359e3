"""The model card: a README.md beside a model, for people and for the Hugging Face Hub.

It says what the SDE and the network are, what was done to the data, how the model was trained, how
good it was found to be, and what its samples look like. One line holds the checksum of all others:
a card is kept up to date until somebody edits it, and then left alone.
"""

from __future__ import annotations

import hashlib
import inspect
import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from scoresde import checkpoint
from scoresde.errors import CheckpointError
from scoresde.pretrained.store import spelt, spelt_count, told
from scoresde.sde import SDES

__all__ = ["write"]

_INLINE = re.compile(r"(?<!\$)\$(?!\$)(.+?)(?<!\$)\$(?!\$)", re.DOTALL)
_MARK = re.compile(r"^<!-- scoresde ([0-9a-f]{16}):.*-->\n", re.MULTILINE)


def write(
    folder: Path, config: Mapping[str, Any], *, name: str | None = None, licence: str | None = None
) -> None:
    """Write the card of the model in a folder, or leave one that somebody edited.

    Args:
        folder: Holds maybe `config.toml`, `samples.png`, and `report.json` or
            `report/report.json`.
        config: The description in the model's file.
        name: What `from_pretrained` takes; by default the folder's own name.
        licence: The licence of the weights, by its name on the hub, such as "mit".

    Raises:
        CheckpointError: The card cannot be written.
    """
    path = folder / "README.md"
    if path.exists() and not _is_ours(path):
        return
    name = folder.resolve().name if name is None else name
    head, body = _front_matter(config, licence), "\n".join(_body(config, folder, name))
    mark = f"<!-- scoresde {_digest(head + body)}: rewritten with the model, until it is edited -->"
    checkpoint.write_bytes(path, f"{head}{mark}\n{body}".encode())


def _is_ours(path: Path) -> bool:
    try:
        text = path.read_text("utf-8")
    except (OSError, UnicodeError):
        return False
    mark = _MARK.search(text)
    return mark is not None and mark[1] == _digest(_MARK.sub("", text, count=1))


def _digest(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def _front_matter(config: Mapping[str, Any], licence: str | None) -> str:
    lines = ["library_name: scoresde", f"license: {licence or config.get('license', 'unknown')}"]
    if len(config["event_shape"]) == 3:
        lines.append("pipeline_tag: unconditional-image-generation")
    tags = ["score-based-generative-model", "diffusion", config["sde"]["type"]]
    lines += ["tags:", *(f"- {tag}" for tag in tags)]
    return "\n".join(["---", *lines, "---", ""])


def _body(config: Mapping[str, Any], folder: Path, name: str) -> Iterator[str]:
    shape = tuple(config["event_shape"])
    net = config["net"]
    options = net.get("config") or {}
    classes = options.get("num_classes")
    of = f", of {classes} classes" if classes else ""
    yield f"# {name}\n"
    yield f"A score-based generative model of events of shape {shape}{of}, made with scoresde.\n"
    if (folder / "samples.png").exists():
        yield "![Samples of the model](samples.png)\n"
    condition = f", condition={{'label': torch.arange(16) % {classes}}}" if classes else ""
    imports = "import scoresde\nimport torch\n" if classes else "import scoresde\n"
    yield "## Use\n"
    yield (
        f"```python\n{imports}\nmodel = scoresde.ScoreModel.from_pretrained({name!r})\n"
        f"x = scoresde.sample(model, model.sde, n=16, seed=0{condition})\n```\n"
    )
    yield "## Model\n"
    yield from _table(
        {
            "SDE": f"`{spelt(config['sde'])}`",
            "Predicts": f"`{config['predicts']}`",
            "Network": f"`{spelt({'type': net['type'], **options})}`",
            "Parameters": f"{config['parameters']:,}" if "parameters" in config else None,
            "Average": told(config, "average", "profile"),
            "Data transform": f"`{spelt(config['transform'])}`" if "transform" in config else None,
        }
    )
    yield from _process(config["sde"]["type"])
    yield from _training(config.get("training"), folder)
    yield from _metrics(folder)


def _table(rows: Mapping[str, str | None]) -> Iterator[str]:
    yield "| | |\n| --- | --- |"
    yield from (f"| {name} | {value} |" for name, value in rows.items() if value is not None)
    yield ""


def _process(kind: str) -> Iterator[str]:
    """The process in formulas, in the words of the SDE's class."""
    if kind not in SDES:
        return
    kernel = r"$\mathcal N(x_t; \alpha_t x_0, \sigma_t^2 I)$"
    formulas = re.split(r"\n\n(?:Args|Examples):", inspect.getdoc(SDES[kind]) or "")[0]
    text = f"The score is that of data under the perturbation kernel {kernel}.\n\n{formulas}\n"
    yield _INLINE.sub(r"\\\\(\1\\\\)", text)  # as the hub spells formulas within a line


def _training(training: object, folder: Path) -> Iterator[str]:
    if not isinstance(training, Mapping):
        return
    done = training.get("done", training.get("steps"))
    steps = "Trained" if done is None else f"{spelt_count(done)} steps"
    yield "## Training\n"
    if not (folder / "config.toml").is_file():
        yield f"{steps} with `{_called('TrainConfig', training)}`.\n"
        return
    yield f"{steps}. The same again, with the file below as `config.toml`:\n"
    yield "```bash\nscoresde train --config config.toml --out run/\n```\n"
    text = (folder / "config.toml").read_text("utf-8", errors="replace")
    yield f"<details><summary>config.toml</summary>\n\n```toml\n{text}```\n\n</details>\n"


def _called(name: str, fields: Mapping[str, Any]) -> str:
    """Return a configuration as the call that makes it, its parts too."""
    named = (
        f"{k}={_called(k.capitalize(), v) if isinstance(v, Mapping) else repr(v)}"
        for k, v in fields.items()
    )
    return f"{name}({', '.join(named)})"


def _metrics(folder: Path) -> Iterator[str]:
    """What `scoresde evaluate` found, where it left a report."""
    found = [
        path
        for path in (folder / "report.json", folder / "report" / "report.json")
        if path.exists()
    ]
    try:
        report = checkpoint.read_json(found[0])
        lines = [
            f"| {name} | {_interval(figure['samples'])} | {_interval(figure['floor'])} |"
            for name, figure in report["figures"].items()
        ]
        what = (
            f"{report['n']:,} samples, and as many real data as the floor, against other real data"
        )
        where = f"{report['size']:,} features ({report['features']})"
    except (CheckpointError, LookupError, TypeError, ValueError, AttributeError):
        return  # there is none, or one of another kind
    yield f"## Metrics\n\n{what}, in {where}:\n"
    yield "\n".join(["| | samples | floor |", "| --- | --- | --- |", *lines, ""])


def _interval(estimate: Mapping[str, float]) -> str:
    return f"{estimate['value']:.4g} [{estimate['low']:.4g}, {estimate['high']:.4g}]"
