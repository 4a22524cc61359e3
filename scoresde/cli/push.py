"""Define `scoresde push`: share a run's model on the Hugging Face Hub."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated

import tyro

from scoresde.cli.terminal import show, tell, then
from scoresde.errors import InvalidValueError
from scoresde.pretrained import card, hub, share
from scoresde.pretrained.store import locate

__all__ = ["Push"]


@dataclass(frozen=True)
class Push:
    """Share a model on the Hugging Face Hub, with its card, its configuration and its pictures."""

    checkpoint: Annotated[tyro.conf.Positional[str], tyro.conf.arg(metavar="CHECKPOINT")]
    """The folder of a run or a model."""
    repo: Annotated[tyro.conf.Positional[str], tyro.conf.arg(metavar="USER/NAME")]
    """The repository, as USER/NAME. It is created if it is missing. Log in first, with `hf auth
    login`."""
    private: bool = False
    """Make the repository private if it is created."""
    license: Annotated[
        str | None, tyro.conf.arg(metavar="NAME", help_behavior_hint="(default: unknown)")
    ] = None
    """The licence of the weights, as the hub names it: mit, cc-by-4.0 ..."""
    dry_run: bool = False
    """Only list the files that would be sent, and send nothing."""

    def run(self) -> None:
        """Verify, describe and upload the model, and print its address."""
        hub.check(self.repo)
        if self.license is not None:
            card.check_licence(self.license)
        path = locate(self.checkpoint)
        if path.name != "model.safetensors":
            raise InvalidValueError(
                f"only the model.safetensors of a folder can be shared, not {path.name}; give a "
                "folder"
            )
        files = share.contents(path.parent, name=self.repo, licence=self.license)
        if self.dry_run:
            for name, content in files.items():
                show(f"{name:20} {len(content):>14,} bytes")
            tell(f"{self.repo} would get these {len(files)} files; nothing was sent")
            private = ["--private"] if self.private else []
            licence = [] if self.license is None else ["--license", self.license]
            then("send them", "push", self.checkpoint, self.repo, *private, *licence)
            return
        url = hub.push(files, self.repo, private=self.private or None, token=None)
        show(f"{self.checkpoint} is at {url}")
        then("draw from it anywhere", "sample", self.repo, "--out", "samples.png")
