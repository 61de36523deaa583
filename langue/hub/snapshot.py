"""Fetch the needed files of a model on the Hub into a local folder.

A repository may contain the model in the files of five frameworks; only the first format that we
read is fetched. HF_TOKEN, HF_HUB_OFFLINE and HF_HOME apply.
"""

import difflib
import glob
import os
from collections.abc import Sequence
from pathlib import Path

from langue.errors import ModelError

# the files of the config and the tokenizer
SAYS = ("*.json", "*.txt", "*.model", "*.spm", "*.bpe", "*.yml", "*.jinja")
# the two files of an adapter
ADAPTER_CONFIG = "adapter_config.json"
ADAPTER_WEIGHTS = "adapter_model.safetensors"
WEIGHTS = (
    ("model*.safetensors",),
    ("pytorch_model*.bin",),
    ("*.msgpack", "*.h5", "*.ckpt*", "*.npz", "*.bin"),
)


def refuse_missing(name: str | Path, revision: str | None = None) -> None:
    """Raise ModelError if there is neither such a local folder or file nor such a model on the Hub.

    The Hub is not contacted for a model that is in the cache. Does not need PyTorch.
    """
    path = Path(os.path.expanduser(name))
    # a TensorFlow checkpoint is named by the common prefix of its files
    if path.exists() or any(path.parent.glob(f"{glob.escape(path.name)}.*")):
        return
    refuse_missing_folder(name)
    from huggingface_hub.constants import HF_HUB_CACHE

    if not (Path(HF_HUB_CACHE) / f"models--{str(name).replace('/', '--')}").is_dir():
        fetch(str(name), revision, ("config.json",), weights=False)


def refuse_missing_folder(name: str | Path) -> None:
    """Raise ModelError if a name that does not exist locally cannot be a name on the Hub."""
    if str(name).startswith((".", "/", "~")) or str(name).count("/") > 1:
        do = near_folder(str(name)) or "give a folder with config.json, or a Hub name"
        raise ModelError("no such model folder", where=str(name), do=do)


def near_folder(name: str) -> str:
    """Return a "did you mean" question with the most similar local folder name, or "" if there is
    none.
    """
    path = Path(os.path.expanduser(name))
    try:
        there = [each.name for each in path.parent.iterdir() if each.is_dir()]
    except OSError:
        return ""
    near = difflib.get_close_matches(path.name, there, 1, 0.6)
    return f"did you mean {path.parent / near[0]}?" if near else ""


def fetch(
    name: str, revision: str | None, patterns: Sequence[str] = SAYS, *, weights: bool
) -> Path:
    """Fetch the files that match the patterns and, if `weights` is set, the weights."""
    folder = _fetch(name, revision, patterns)
    for patterns in WEIGHTS if weights else ():
        folder = _fetch(name, revision, patterns)
        if any(True for pattern in patterns for _ in folder.glob(pattern)):
            break
    return folder


def fetch_file(name: str, revision: str | None, path: str) -> None:
    """Fetch one more file, or those of a pattern; it may lie in a subfolder of the repository."""
    _fetch(name, revision, [path], top=False)


def _fetch(name: str, revision: str | None, patterns: Sequence[str], top: bool = True) -> Path:
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import HfHubHTTPError, HFValidationError, LocalEntryNotFoundError

    beneath = ["*/*"] if top else None
    try:
        return Path(
            snapshot_download(
                name, revision=revision, allow_patterns=list(patterns), ignore_patterns=beneath
            )
        )
    except LocalEntryNotFoundError as error:
        # If the Hub is unreachable, a partial snapshot in the cache may suffice; loading will show.
        part = getattr(error, "snapshot_path", None)
        if part is not None:
            return Path(part)
        raise _refusal(name, revision, error) from error
    except (HfHubHTTPError, HFValidationError, OSError) as error:
        raise _refusal(name, revision, error) from error


def _refusal(name: str, revision: str | None, error: Exception) -> ModelError:
    """Return the Hub's answer as an error; subclasses are tested before their base classes."""
    from huggingface_hub.constants import HF_HUB_OFFLINE
    from huggingface_hub.errors import (
        GatedRepoError,
        LocalEntryNotFoundError,
        RepositoryNotFoundError,
        RevisionNotFoundError,
    )

    kind = type(error).__name__
    at = f" at revision {revision!r}" if revision else ""
    if isinstance(error, GatedRepoError):
        what = "the model is gated"
        do = "ask for access on its page of the Hub, and set HF_TOKEN"
    elif isinstance(error, RepositoryNotFoundError):
        what = "neither a local folder nor a model on the Hub"
        do = "check the name; a private model needs HF_TOKEN"
    elif isinstance(error, RevisionNotFoundError):
        what = f"the Hub has no revision {revision!r} of it"
        do = "give a branch, a tag or a commit"
    elif isinstance(error, LocalEntryNotFoundError) and HF_HUB_OFFLINE:
        what = f"neither a local folder nor in the Hub's cache{at}"
        do = "unset HF_HUB_OFFLINE to fetch it"
    elif isinstance(error, LocalEntryNotFoundError):
        what = f"neither a local folder nor in the Hub's cache{at}, and the Hub is out of reach"
        do = "check the network"
    else:
        what = f"neither a local folder nor to be had from the Hub ({kind})"
        do = "check the name, the network, and HF_TOKEN for private models"
    near = near_folder(name) if what.startswith("neither a local folder") else ""
    return ModelError(what, where=name, do=f"{near} {do}" if near else do)
