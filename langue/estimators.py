"""Estimators for scikit-learn that are trained by `langue.finetune`: they can be cloned, tuned by
search, put into a Pipeline and cross-validated.

    from langue import TextClassifier
    TextClassifier("MODEL", epochs=2).fit(texts, labels).predict(["A delight."])

A fitted estimator contains a model of langue. A pickle, a joblib or a skops file holds the files of
the model's folder as arrays of bytes, with weights as safetensors, and loading reads them as
untrusted input; `save` and `load` of an estimator need no pickle at all.
"""

import contextlib
import json
import os
import warnings
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, ClassVar, Self

import numpy as np
from numpy.typing import NDArray
from sklearn.base import BaseEstimator, ClassifierMixin, RegressorMixin, TransformerMixin
from sklearn.utils import check_random_state
from sklearn.utils.validation import check_is_fitted

from langue.errors import DataError, RunError
from langue.files import atomic_folder, read_json, write_json
from langue.runs.arguments import FINETUNE
from langue.runs.execute import execute
from langue.runs.inputs import is_empty
from langue.runs.model import Model, load
from langue.runs.save import refuse_filled
from langue.tasks import ESTIMATED
from langue.text.read.split import class_numbers, hold_out

SAVED = "estimator.json"
FILES = "model_files"  # key in a pickle that replaces the model
# Parameters that are settings; None: langue's default.
SETTINGS = {
    "epochs": "train.epochs",
    "max_steps": "train.max_steps",
    "lr": "train.lr",
    "batch_examples": "train.batch_examples",
    "max_length": "data.max_length",
}


class InputError(DataError, ValueError):
    """Unusable input to an estimator; a ValueError, as scikit-learn expects."""


class _Estimator(BaseEstimator):  # type: ignore[misc]
    """The common base: text input, and a model that is stored without a pickle."""

    model: Any
    model_: Model

    def __sklearn_tags__(self) -> Any:
        tags = super().__sklearn_tags__()
        tags.input_tags.string = True
        tags.input_tags.one_d_array = True
        tags.input_tags.two_d_array = False
        tags.no_validation = False
        return tags

    def __sklearn_is_fitted__(self) -> bool:
        return "model_" in vars(self)

    def save(self, folder: str | Path) -> None:
        """Write the estimator to a folder that `langue.load` and, where possible, `transformers`
        also read.

        Raises ModelError if the folder is not empty, and InputError for a parameter that JSON
        cannot express.
        """
        check_is_fitted(self)
        path = Path(folder)
        refuse_filled(path)
        for name, value in self.get_params(deep=False).items():
            if not _is_plain(value):
                raise InputError(
                    f"the parameter {name} = {value!r} has no JSON", do=f"set {name} to a number"
                )
        with atomic_folder(path) as temporary:
            self.model_.save(temporary)
            write_json(temporary / SAVED, self._kept())

    def _kept(self) -> dict[str, Any]:
        params = {
            name: str(value) if isinstance(value, Path) else value
            for name, value in self.get_params(deep=False).items()
        }
        return {"class": type(self).__name__, "params": params}

    @classmethod
    def load(cls, folder: str | Path) -> Self:
        """Load an estimator that `save` has written; RunError if there is none, or one of another
        class.
        """
        path = Path(folder) / SAVED
        if not path.is_file():
            raise RunError(
                "no estimator was saved there", where=str(folder), do="use langue.load for a model"
            )
        kept = read_json(path)
        if not isinstance(kept, dict) or kept.get("class") != cls.__name__:
            named = kept.get("class") if isinstance(kept, dict) else None
            raise RunError(
                f"it is no {cls.__name__} but {named!r}",
                where=str(path),
                do="load it as what it is",
            )
        made = cls(**kept["params"])
        made.model_ = load(folder)
        made._restore(kept)
        return made

    def _restore(self, kept: Mapping[str, Any]) -> None:
        """Restore what `_kept` returned in addition to the parameters."""

    def __getstate__(self) -> dict[str, Any]:
        state = dict(super().__getstate__())
        if "model_" in state:
            with TemporaryDirectory() as temporary:
                folder = Path(temporary) / "model"
                state.pop("model_").save(folder)
                state[FILES] = {
                    file.relative_to(folder).as_posix(): np.fromfile(file, np.uint8)
                    for file in sorted(folder.rglob("*"))
                    if file.is_file()
                }
        return state

    def __setstate__(self, state: dict[str, Any]) -> None:
        state = dict(state)
        files = state.pop(FILES, None)
        super().__setstate__(state)
        if files is None:
            return
        with TemporaryDirectory() as temporary:
            for name, content in files.items():
                path = Path(temporary, name)
                if not path.resolve().is_relative_to(Path(temporary).resolve()):
                    raise RunError(f"a file of the model is named {name!r}", do="do not trust it")
                path.parent.mkdir(parents=True, exist_ok=True)
                np.asarray(content, np.uint8).tofile(path)
            self.model_ = load(temporary)


class _Trained(_Estimator):
    """An estimator that is fine-tuned.

    model: a Hub name or a folder. epochs, max_steps, lr, batch_examples, max_length, and others in
    `settings` by `section.key`: as in `langue.finetune`; None: its default. validation_fraction:
    share of the rows on which the best step is selected. random_state: the seed, also of the split;
    None: 0. verbose: show the training on stderr.
    """

    column: ClassVar[str]  # the column of the targets
    notes_: list[str]

    def __init__(
        self,
        model: Any = None,
        *,
        epochs: float | None = None,
        max_steps: int | None = None,
        lr: float | None = None,
        batch_examples: int | None = None,
        max_length: int | None = None,
        validation_fraction: float = 0.1,
        settings: Mapping[str, Any] | None = None,
        random_state: Any = None,
        verbose: bool = False,
    ) -> None:
        self.model = model
        self.epochs = epochs
        self.max_steps = max_steps
        self.lr = lr
        self.batch_examples = batch_examples
        self.max_length = max_length
        self.validation_fraction = validation_fraction
        self.settings = settings
        self.random_state = random_state
        self.verbose = verbose

    def _train(self, items: list[Any], targets: list[Any], own: Mapping[str, Any]) -> None:
        """Fine-tune on items and their targets, in the form in which rows hold them."""
        rows = [{**self._row(i), self.column: t} for i, t in zip(items, targets, strict=True)]
        seed = self._seed()
        classes = class_numbers(targets) if self.column == "label" else None
        kept, held = self._held_out(len(rows), seed, classes)
        words: dict[str, Any] = {"data.duplicates": False, "train.seed": seed, **own}
        for name, key in SETTINGS.items():
            if getattr(self, name) is not None:
                words[key] = getattr(self, name)
        words |= dict(self.settings or {})
        data = {"train": [rows[i] for i in kept], "dev": [rows[i] for i in held]}
        given = {"task": ESTIMATED[type(self).__name__], "model": self.model, "data": data}
        with TemporaryDirectory() as temporary, _quiet(not self.verbose):
            run = execute(
                FINETUNE,
                {**given, "columns": None},
                words,
                out=Path(temporary) / "run",
                judge=False,
            )
            self.model_ = load(run.folder)
        self.notes_ = list(run.facts["notes"])

    def _row(self, item: Any) -> dict[str, Any]:
        if isinstance(item, tuple):
            return {"text": item[0], "pair": item[1]}
        return {"text": item}

    def _seed(self) -> int:
        if self.random_state is None:
            return 0
        if isinstance(self.random_state, int | np.integer):
            return int(self.random_state)
        return int(check_random_state(self.random_state).randint(2**31 - 1))

    def _held_out(
        self, count: int, seed: int, classes: NDArray[np.int64] | None
    ) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        share = self.validation_fraction
        if not isinstance(share, float) or not 0 < share < 1:
            raise InputError(
                f"validation_fraction = {share!r} is no share of the rows", do="give 0.1"
            )
        if count < 2:
            raise InputError(
                f"n_samples={count}: a row to train on and one to choose by are needed",
                do="give more rows",
            )
        return hold_out(count, max(1, min(count - 1, round(count * share))), seed, classes)

    def _predictions(self, X: Any) -> Any:  # noqa: N803
        """Return the task's decoded predictions."""
        check_is_fitted(self)
        items = self._items(X)
        rows, encoded = self.model_.answerable(items)
        if len(rows) < len(items):
            bad = min(set(range(len(items))) - set(rows))
            raise InputError(f"X[{bad}] has no text in it", do="take it out")
        return self.model_.apply(encoded)

    def _items(self, X: Any) -> list[Any]:  # noqa: N803
        return texts_of(X)


class TextClassifier(ClassifierMixin, _Trained):  # type: ignore[misc]
    """Classifier of texts, or of pairs of texts as tuples, fine-tuned by `langue.finetune`.

    After `fit`: `classes_`, in the order of the columns of `predict_proba`; `model_`, a
    `langue.Model`; `notes_`, reports of what was truncated or dropped.
    """

    column = "label"
    classes_: NDArray[Any]

    def fit(self, X: Any, y: Any) -> Self:  # noqa: N803
        """Fine-tune on texts X and their labels y."""
        items = texts_of(X)
        targets = targets_of(y, len(items))
        classes, numbers = np.unique(targets, return_inverse=True)
        if len(classes) < 2:
            raise InputError(
                f"y has one class, {classes[0]!r}, and nothing can be told apart",
                do="give rows of at least two classes",
            )
        names = _names(classes)
        own = {"task.multi_label": False}
        self._train(items, [names[number] for number in numbers], own)
        self.classes_ = classes
        return self

    def predict_proba(self, X: Any) -> NDArray[np.float64]:  # noqa: N803
        """Return the probability of each class, (N, C)."""
        found = np.asarray(self._predictions(X), np.float64)  # (N, C), in the task's order
        task: Any = self.model_.task
        order = [task.labels.index(name) for name in _names(self.classes_)]
        found = found.reshape(-1, len(order))[:, order]
        normalised: NDArray[np.float64] = found / found.sum(axis=1, keepdims=True)
        return normalised

    def predict(self, X: Any) -> NDArray[Any]:  # noqa: N803
        """Return the most probable class of each text, (N,)."""
        likeliest = self.predict_proba(X).argmax(axis=1)
        found: NDArray[Any] = self.classes_[likeliest]
        return found

    def _kept(self) -> dict[str, Any]:
        return super()._kept() | {
            "classes": self.classes_.tolist(),
            "kind": "str" if self.classes_.dtype.kind in "OUS" else str(self.classes_.dtype),
        }

    def _restore(self, kept: Mapping[str, Any]) -> None:
        kind = kept["kind"]
        self.classes_ = np.asarray(kept["classes"], None if kind == "str" else np.dtype(kind))


class TextRegressor(RegressorMixin, _Trained):  # type: ignore[misc]
    """Regressor of texts, or of pairs of texts as tuples, fine-tuned by `langue.finetune`."""

    column = "score"

    def fit(self, X: Any, y: Any) -> Self:  # noqa: N803
        """Fine-tune on texts X and their numbers y."""
        items = texts_of(X)
        try:
            targets = np.asarray(targets_of(y, len(items)), np.float64)
        except (TypeError, ValueError) as error:
            if isinstance(error, InputError):
                raise
            raise InputError("y has what is no number", do="give numbers") from None
        if not np.isfinite(targets).all():
            bad = int(np.flatnonzero(~np.isfinite(targets))[0])
            raise InputError(f"y[{bad}] is {targets[bad]}: NaN or infinity", do="take it out")
        self._train(items, targets.tolist(), {})
        return self

    def predict(self, X: Any) -> NDArray[np.float64]:  # noqa: N803
        """Return a number for each text, (N,)."""
        return np.asarray(self._predictions(X), np.float64).reshape(-1)


class Tagger(_Trained):
    """Tagger of words: X are lists of words, y lists of tags of the same lengths.

    `score` is the F1 of entities if tags mark entities, such as B-PER, and otherwise the accuracy.
    """

    column = "tags"

    def fit(self, X: Any, y: Any) -> Self:  # noqa: N803
        """Fine-tune on lists of words X and lists of their tags y."""
        items = self._items(X)
        targets = [list(map(str, each)) for each in self._tags(y, items)]
        self._train(items, targets, {})
        return self

    def predict(self, X: Any) -> list[list[str]]:  # noqa: N803
        """Return the tags of each list of words."""
        return [list(each.tags) for each in self._predictions(X)]

    def score(self, X: Any, y: Any) -> float:  # noqa: N803
        """Return the F1 of entities, or the accuracy of tags."""
        items = self._items(X)
        golds = [list(map(str, each)) for each in self._tags(y, items)]
        task = self.model_.task if self.__sklearn_is_fitted__() else None
        predictions = self._predictions(X)
        assert task is not None
        known = [task.known_target(each, lambda: "y") for each in golds]
        value = task.metrics(known, predictions)[task.main_metric]
        return float("nan") if value is None else float(value)

    def _row(self, item: Any) -> dict[str, Any]:
        return {"tokens": item}

    def _items(self, X: Any) -> list[Any]:  # noqa: N803
        items = []
        for number, words in enumerate(_listed(X, "X")):
            if isinstance(words, str) or not isinstance(words, Sequence | np.ndarray):
                raise InputError(f"X[{number}] is no list of words", do='give ["its", "words"]')
            items.append([str(word) for word in words])
        return items

    def _tags(self, y: Any, items: list[Any]) -> list[Any]:
        tags = list(_listed(y, "y"))
        _check_lengths(len(tags), len(items))
        for number, (own, words) in enumerate(zip(tags, items, strict=True)):
            if isinstance(own, str) or len(own) != len(words):
                raise InputError(
                    f"y[{number}] has {len(own)} tags and X[{number}] {len(words)} words",
                    do="give a tag for each word",
                )
        return tags


class TextEmbedder(TransformerMixin, _Estimator):  # type: ignore[misc]
    """Transformer that returns one vector for each text, as `langue.load(model).encode` does.

    model: a Hub name or a folder. pool, prompt: as in `encode`. Nothing is learnt. A pickle
    contains the model, so that it can be used elsewhere.
    """

    def __init__(
        self, model: Any = None, *, pool: str | None = None, prompt: str | None = None
    ) -> None:
        self.model = model
        self.pool = pool
        self.prompt = prompt

    def __sklearn_tags__(self) -> Any:
        tags = super().__sklearn_tags__()
        tags.requires_fit = True
        return tags

    def fit(self, X: Any, y: Any = None) -> Self:  # noqa: N803
        """Load the model; X is only checked."""
        texts_of(X)
        if self.model is None:
            raise InputError("no model was named", do="give a Hub name or a folder: model=...")
        self.model_ = load(self.model)
        return self

    def transform(self, X: Any) -> NDArray[np.float32]:  # noqa: N803
        """Return the vectors, (N, D)."""
        check_is_fitted(self)
        return self.model_.encode(texts_of(X), pool=self.pool, prompt=self.prompt)

    def get_feature_names_out(self, input_features: Any = None) -> NDArray[Any]:
        """Return `embedding0` and so on."""
        check_is_fitted(self)
        width = self.model_.encode(["a"], pool=self.pool, prompt=self.prompt).shape[1]
        return np.array([f"embedding{place}" for place in range(width)], dtype=object)


# --- what is given ---


def texts_of(X: Any) -> list[Any]:  # noqa: N803
    """Return texts, or pairs as tuples, from a list, an array, a Series or a table with one or two
    columns.

    Raises InputError for anything else, and for empty texts.
    """
    items = _listed(X, "X")
    texts: list[Any] = []
    for number, item in enumerate(items):
        parts = tuple(item) if isinstance(item, tuple | list | np.ndarray) else (item,)
        if len(parts) not in (1, 2) or not all(isinstance(part, str) for part in parts):
            bad = next((part for part in parts if not isinstance(part, str)), item)
            raise InputError(
                f"X[{number}] is {type(bad).__name__}, no text", do="give a list of strings"
            )
        texts.append(str(parts[0]) if len(parts) == 1 else (str(parts[0]), str(parts[1])))
        if is_empty(texts[-1], False):
            raise InputError(f"X[{number}] has no text in it", do="take it out")
    return texts


def targets_of(y: Any, count: int) -> NDArray[Any]:
    """Return the targets, (N,).

    Raises InputError if their number differs from that of texts, if a text has several, or if one
    is missing.
    """
    if y is None:
        raise InputError("y is None, and targets are needed: requires y to be passed", do="give y")
    if hasattr(y, "toarray"):
        raise InputError(
            "y is sparse: several labels a text",
            do="use langue.finetune(..., task__multi_label=True)",
        )
    targets = np.asarray(_listed(y, "y"))
    if targets.ndim == 2 and targets.shape[1] == 1:
        targets = targets[:, 0]
    if targets.ndim != 1:
        raise InputError(
            f"y has the shape {targets.shape}: one target a text is taken",
            do="for several labels a text use langue.finetune(..., task__multi_label=True)",
        )
    _check_lengths(len(targets), count)
    if targets.dtype.kind == "O":
        missing = [i for i, each in enumerate(targets) if each is None or each != each]
        if missing:
            raise InputError(f"y[{missing[0]}] is missing", do="take the row out")
    elif targets.dtype.kind == "f" and np.isnan(targets).any():
        bad = int(np.flatnonzero(np.isnan(targets))[0])
        raise InputError(f"y[{bad}] is NaN", do="take the row out")
    return targets


def _listed(given: Any, name: str) -> list[Any]:
    """Return a list from any input of scikit-learn; (N, 1) and a table with one column become
    (N,).
    """
    if isinstance(given, str | bytes | Mapping):
        raise InputError(f"{name} is one {type(given).__name__}", do="put it into a list")
    if hasattr(given, "to_numpy"):
        given = given.to_numpy()
    if hasattr(given, "toarray") or not hasattr(given, "__len__"):
        raise InputError(f"{name} is {type(given).__name__}", do="give a list or an array")
    if isinstance(given, np.ndarray) and given.ndim == 2 and given.shape[1] == 1:
        given = given[:, 0]
    if not len(given):
        raise InputError(f"{name} is empty: Found array with 0 sample(s)", do="give some")
    return list(given)


def _check_lengths(targets: int, count: int) -> None:
    if targets != count:
        raise InputError(
            f"X has {count} rows and y {targets}: inconsistent numbers of samples",
            do="give as many of both",
        )


def _names(classes: NDArray[Any]) -> list[str]:
    """Return the names of the classes in the model: their text or, if that is not possible, their
    number.
    """
    names = [str(each) for each in classes.tolist()]
    plain = all(name == name.strip() and name for name in names)
    if plain and len(set(names)) == len(names):
        return names
    return [f"class {number}" for number in range(len(names))]


def _is_plain(value: Any) -> bool:
    """Return whether JSON can express a parameter."""
    try:
        json.dumps(str(value) if isinstance(value, Path) else value)
    except (TypeError, ValueError):
        return False
    return True


@contextlib.contextmanager
def _quiet(wished: bool) -> Iterator[None]:
    """Suppress progress bars; warnings are still issued."""
    if not wished:
        yield
        return
    with (
        warnings.catch_warnings(record=True) as heard,
        open(os.devnull, "w") as nowhere,
        contextlib.redirect_stderr(nowhere),
    ):
        warnings.simplefilter("always")
        yield
    for each in heard:
        warnings.warn_explicit(each.message, each.category, each.filename, each.lineno)
