"""Download models from the Hugging Face Hub and upload them: safetensors and JSON, no code.

The package `huggingface_hub` (the extra `hub`) transfers the files. All its errors are raised as
CheckpointError.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from scoresde.errors import CheckpointError, InvalidValueError, MissingExtraError

__all__ = ["check", "fetch", "is_repo", "push"]

_PATIENCE = 10.0  # seconds
# errors of the client and of its libraries if the hub cannot be reached
_UNREACHABLE = {
    "ConnectionError", "OfflineModeIsEnabled", "Timeout", "TimeoutError", "TimeoutException",
    "TransportError",
}  # fmt: skip
_REPO = r"\w[\w.-]*/\w[\w.-]*"
_HINTS = {
    "GatedRepoError": "ask for access on its page, and log in with `hf auth login`",
    "RepositoryNotFoundError": "there is no such repository, or it needs `hf auth login`",
    "RemoteEntryNotFoundError": "it is not a model of scoresde: it has no model.safetensors",
    "LocalTokenNotFoundError": "log in with `hf auth login`, or pass token=",
    "LocalEntryNotFoundError": "the hub cannot be reached, and the model was not fetched before",
    "ConnectError": "the hub cannot be reached",
    "OfflineModeIsEnabled": "the hub is not used while HF_HUB_OFFLINE is set",
}


def is_repo(name: str) -> bool:
    """Return True if a name has the form `user/name` or `user/name@revision` of the hub."""
    return re.fullmatch(rf"{_REPO}(@[\w./-]+)?", name) is not None


def check(repo_id: str) -> None:
    """Raise InvalidValueError unless the name of a repository has the form `user/name`."""
    if not re.fullmatch(_REPO, repo_id):
        raise InvalidValueError(f"a repository of the hub is called 'user/name', got {repo_id!r}")


def fetch(name: str) -> Path:
    """Return the file of a model on the hub; download it unless it is in the cache.

    Raises:
        MissingExtraError: huggingface_hub is not installed.
        CheckpointError: There is no such model, or the hub cannot be reached.
    """
    client = _client(f"there is no folder {name!r}; looking for it on the Hugging Face Hub")
    repo, _, revision = name.partition("@")
    known = {"revision": revision or None}
    with _errors(f"there is no folder {name!r}, and no model of that name came from the hub"):
        offline = not _is_reachable(client, repo, **known)
        # config.json too, since the hub counts downloads by this file
        for file in ("config.json", "model.safetensors"):
            path = client.hf_hub_download(repo, file, local_files_only=offline, **known)
        return Path(path)


def _is_reachable(client: Any, repo: str, revision: str | None) -> bool:
    """Return True if the hub answers; a download from a hub that does not would retry for 30 s."""
    try:
        client.HfApi().model_info(repo, revision=revision, timeout=_PATIENCE)
    except Exception as error:
        if not _UNREACHABLE & {kind.__name__ for kind in type(error).__mro__}:
            raise
        return False
    return True


def push(
    contents: Mapping[str, bytes], repo_id: str, *, private: bool | None, token: str | None
) -> str:
    """Upload files to a repository, and return its URL.

    Args:
        contents: The contents of the files, by their names in the repository.
        repo_id: The repository; it is created if it is missing.
        private: True makes a new repository private; None takes the default of the account.
        token: An access token; None takes the token of the login on this machine.

    Raises:
        InvalidValueError: `repo_id` is not of the form `user/name`.
        MissingExtraError: huggingface_hub is not installed.
        CheckpointError: The hub refuses the upload, or cannot be reached.
    """
    check(repo_id)
    client = _client("sharing a model")
    api = client.HfApi(token=token)
    with _errors(f"cannot push to {repo_id!r}"):
        url = api.create_repo(repo_id, private=private, exist_ok=True)
        api.create_commit(
            repo_id,
            [client.CommitOperationAdd(name, content) for name, content in contents.items()],
            commit_message="Upload a model of scoresde",
        )
    return str(url)


def _client(purpose: str) -> Any:
    try:
        import huggingface_hub
    except ImportError as error:
        raise MissingExtraError.of("huggingface_hub", "hub", purpose) from error
    return huggingface_hub


@contextmanager
def _errors(what: str) -> Iterator[None]:
    """Turn every error of the hub or the network in the block into a CheckpointError."""
    try:
        yield
    # the errors of the client and of the network have no common base class
    except Exception as error:
        kinds = [kind.__name__ for kind in type(error).__mro__]
        hint = next((_HINTS[kind] for kind in kinds if kind in _HINTS), None)
        first = next((line for line in str(error).splitlines() if line.strip()), "no reason given")
        raise CheckpointError(f"{what}: {hint or f'{kinds[0]}: {first.strip()}'}") from error
