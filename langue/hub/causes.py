"""What arrives: an error met in reading a model folder. What leaves: the error that names its
cause, where the folder shows another one than what was met.
"""

from pathlib import Path

from langue.errors import ModelError

POINTER = b"version https://git-lfs.github.com/spec/"
# An error that does not name these is not of them.
_WEIGHTS = (".safetensors", ".bin", ".msgpack", ".h5", ".gguf", ".npz", ".pt", ".pth")


def is_pointer(file: Path) -> bool:
    """Whether Git wrote a line in the place of the file, which lies in large-file storage."""
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
    """The file that is a pointer, of those that an error is about: the one that it names, or, where
    it is about the folder, one that holds no weights.
    """
    for file in sorted(folder.glob("*")) if folder.is_dir() else [folder]:
        of_folder = where == str(folder) and file.suffix not in _WEIGHTS
        if (of_folder or str(file) in where) and file.is_file() and is_pointer(file):
            return file
    return None
