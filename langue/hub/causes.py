"""Find the cause of an error that was raised while a model folder was read.

If the folder shows another cause than the error states, the error is replaced by one that names
this cause. So far the only such cause is a pointer file of Git LFS.
"""

from pathlib import Path

from langue.errors import ModelError

POINTER = b"version https://git-lfs.github.com/spec/"
# An error about the folder as a whole is not about these files.
_WEIGHTS = (".safetensors", ".bin", ".msgpack", ".h5", ".gguf", ".npz", ".pt", ".pth")


def is_pointer(file: Path) -> bool:
    """Return whether a file is a Git LFS pointer that stands for a file not yet fetched."""
    try:
        with file.open("rb") as handle:
            return handle.read(len(POINTER)) == POINTER
    except OSError:
        return False


def refuse_pointer(file: Path) -> ModelError:
    return ModelError(
        f"{file.name} is a pointer of Git LFS, which stands for the file: the file itself was not"
        " fetched",
        where=str(file),
        do=f"run `git lfs pull` in {file.parent}, or put the file itself there",
    )


def pointer_met(where: str, folder: Path) -> Path | None:
    """Return the Git LFS pointer that an error is about, or None: the file that the error names or,
    if the error is about the folder, one that does not hold weights.
    """
    for file in sorted(folder.glob("*")) if folder.is_dir() else [folder]:
        of_folder = where == str(folder) and file.suffix not in _WEIGHTS
        if (of_folder or str(file) in where) and file.is_file() and is_pointer(file):
            return file
    return None
