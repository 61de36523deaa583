"""The estimators keep what scikit-learn asks of one. Its own checks give arrays of numbers, and run
one alone on an estimator of text; these are what the others hold, with text.
"""

import gc
import inspect
import json
import pickle
import warnings

import numpy as np
import pandas as pd
import pytest
import scipy.sparse
from sklearn.base import clone, is_classifier, is_regressor
from sklearn.exceptions import NotFittedError
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import GridSearchCV, cross_val_score
from sklearn.pipeline import make_pipeline
from sklearn.utils.estimator_checks import check_estimator_cloneable

import langue
from langue import Tagger, TextClassifier, TextEmbedder, TextRegressor
from langue.errors import LangueError, RunError
from langue.runtime import resident_memory
from tests.tiny import reviews, tiny_bert

ROWS = reviews(60)
TEXTS = [row["text"] for row in ROWS]
LABELS = [row["label"] for row in ROWS]
NUMBERS = [float(text.split().count("the")) for text in TEXTS]
WORDS = [text.split() for text in TEXTS]
TAGS = [["B-X" if len(word) > 4 else "O" for word in words] for words in WORDS]
SMALL = {"max_steps": 6, "lr": 3e-3, "batch_examples": 16}
KINDS = {
    "classifier": (TextClassifier, TEXTS, LABELS),
    "regressor": (TextRegressor, TEXTS, NUMBERS),
    "tagger": (Tagger, WORDS, TAGS),
}


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    return str(tiny_bert(tmp_path_factory.mktemp("estimators") / "model"))


@pytest.fixture(scope="module")
def fitted(model):
    return {
        name: kind(model, **SMALL).fit(items, targets)
        for name, (kind, items, targets) in KINDS.items()
    }


def made(name, model):
    return KINDS[name][0](model, **SMALL)


def same(a, b):
    if isinstance(a, list):
        return a == b
    return np.array_equal(a, b)


# --- parameters ---


@pytest.mark.parametrize("kind", [TextClassifier, TextRegressor, Tagger, TextEmbedder])
def test_every_argument_is_a_parameter_and_stays_what_it_was(kind):
    names = set(inspect.signature(kind.__init__).parameters) - {"self"}
    estimator = kind()
    assert set(estimator.get_params()) == names
    marks = {name: object() for name in names}
    estimator.set_params(**marks)
    assert all(getattr(estimator, name) is mark for name, mark in marks.items())
    assert set(vars(estimator)) == names  # nothing else is made before `fit`
    check_estimator_cloneable(kind.__name__, kind())
    assert repr(kind("m")) and kind().get_params() == clone(kind()).get_params()
    with pytest.raises(ValueError, match="nothing"):
        estimator.set_params(nothing=1)


@pytest.mark.parametrize("name", KINDS)
def test_fit_changes_no_parameter_and_returns_itself(model, name):
    kind, items, targets = KINDS[name]
    settings = {"train.warmup": 0.0}
    estimator = kind(model, settings=settings, **SMALL)
    before = {key: value for key, value in estimator.get_params().items()}
    copies = json.dumps([items, targets])
    assert estimator.fit(items, targets) is estimator
    assert estimator.get_params() == before and settings == {"train.warmup": 0.0}
    assert json.dumps([items, targets]) == copies
    assert all(key.endswith("_") for key in set(vars(estimator)) - set(before))


@pytest.mark.parametrize("name", KINDS)
def test_before_fit_nothing_is_predicted(model, name):
    estimator = made(name, model)
    items = KINDS[name][1]
    for method in ("predict", "predict_proba"):
        if hasattr(estimator, method):
            with pytest.raises(NotFittedError):
                getattr(estimator, method)(items)
    with pytest.raises(NotFittedError):
        clone(estimator).score(items, KINDS[name][2])


@pytest.mark.parametrize("name", KINDS)
def test_fitted_twice_is_fitted_once(fitted, model, name):
    items, targets = KINDS[name][1:]
    again = clone(fitted[name])
    assert not hasattr(again, "model_")
    other = again.fit(items[:20], targets[:20]).predict(items)
    again.fit(items, targets)
    assert same(again.predict(items), fitted[name].predict(items))
    assert name != "regressor" or not same(other, again.predict(items))


def test_the_seed_decides(model):
    few = {**SMALL, "max_steps": 3}
    found = [
        TextClassifier(model, random_state=seed, **few).fit(TEXTS, LABELS).predict_proba(TEXTS)
        for seed in (1, 1, 2, np.random.RandomState(5), np.random.RandomState(5))
    ]
    assert np.array_equal(found[0], found[1]) and not np.array_equal(found[0], found[2])
    assert np.array_equal(found[3], found[4])


# --- input ---


@pytest.mark.parametrize(
    "given",
    [tuple, np.array, lambda x: np.array(x, object), pd.Series, lambda x: pd.DataFrame({"t": x}),
     lambda x: np.array(x)[:, None], lambda x: pd.Series(x, index=range(7, 7 + len(x)))],
)  # fmt: skip
def test_texts_come_as_they_like(fitted, given):
    expected = fitted["classifier"].predict_proba(TEXTS)
    assert np.array_equal(fitted["classifier"].predict_proba(given(TEXTS)), expected)


@pytest.mark.parametrize(
    ("items", "targets", "said"),
    [
        ("a text", ["a"], "put it into a list"),
        ([], [], "is empty"),
        (["a", None], ["a", "b"], r"X\[1\] is NoneType"),
        (["a", float("nan")], ["a", "b"], r"X\[1\] is float"),
        (["a", "  "], ["a", "b"], r"X\[1\] has no text"),
        ([1, 2], ["a", "b"], r"X\[0\] is int"),
        ([["a", "b", "c"]], ["a"], "no text"),
        (["a", "b"], ["a"], "inconsistent"),
        (["a", "b"], None, "y is None"),
        (["a", "b"], ["a", None], r"y\[1\] is missing"),
        (["a", "b"], [0.0, float("nan")], r"y\[1\] is NaN"),
        (["a", "b"], [[0, 1], [1, 0]], "one target a text"),
        (["a", "b"], scipy.sparse.csr_matrix(np.eye(2)), "sparse"),
        (["a", "b"], ["a", "a"], "y has one class"),
        (scipy.sparse.csr_matrix(np.eye(2)), [0, 1], "csr_matrix"),
    ],
)
def test_what_is_no_input_is_a_value_error_of_one_line(model, items, targets, said):
    with pytest.raises(ValueError, match=said) as caught:
        made("classifier", model).fit(items, targets)
    assert isinstance(caught.value, LangueError) and "\n" not in str(caught.value)


def test_what_else_is_no_input(model, fitted):
    with pytest.raises(ValueError, match="n_samples=1"):
        made("regressor", model).fit(["a"], [1.0])
    with pytest.raises(ValueError, match="infinity"):
        made("regressor", model).fit(["a", "b"], [1.0, float("inf")])
    with pytest.raises(ValueError, match="no number"):
        made("regressor", model).fit(["a", "b"], ["x", "y"])
    with pytest.raises(ValueError, match="1 tags and X"):
        made("tagger", model).fit([["a", "b"]], [["O"]])
    with pytest.raises(ValueError, match="no list of words"):
        made("tagger", model).fit(["a b"], [["O", "O"]])
    with pytest.raises(ValueError, match="validation_fraction = 2"):
        TextClassifier(model, validation_fraction=2).fit(TEXTS, LABELS)
    with pytest.raises(LangueError, match="no model was named"):
        TextClassifier().fit(TEXTS, LABELS)
    with pytest.raises(LangueError, match=r"train\.lr"):
        TextClassifier(model, settings={"train.lrr": 1}).fit(TEXTS, LABELS)
    with pytest.raises(TypeError):
        TextClassifier(model).fit(TEXTS, LABELS, sample_weight=[1.0] * 60)
    with pytest.raises(ValueError, match=r"X\[1\] has no text"):
        fitted["classifier"].predict(["a", ""])


# --- what is predicted ---


def test_a_classifier_is_one(fitted):
    estimator = fitted["classifier"]
    assert is_classifier(estimator) and not is_regressor(estimator)
    assert list(estimator.classes_) == ["neg", "pos"]
    found = estimator.predict_proba(TEXTS)
    assert found.shape == (60, 2) and np.allclose(found.sum(axis=1), 1)
    assert np.array_equal(estimator.predict(TEXTS), estimator.classes_[found.argmax(axis=1)])
    assert estimator.score(TEXTS, LABELS) == np.mean(estimator.predict(TEXTS) == LABELS)
    # row by row as all at once, and in another order
    alone = np.concatenate([estimator.predict_proba([text]) for text in TEXTS[:5]])
    assert np.allclose(alone, found[:5], atol=1e-5)
    assert np.allclose(estimator.predict_proba(TEXTS[::-1])[::-1], found, atol=1e-5)
    # the columns are those of the model's own labels
    best = estimator.model_.predict(TEXTS)
    assert [each["label"] for each in best] == list(estimator.predict(TEXTS))


@pytest.mark.parametrize(
    "classes",
    [[10, 9], [0, 1, 2], [True, False], [1.5, 0.5], ["b", "a", "a b"], [" x", "x"], ["a|b", "c"],
     list(range(11))],
)  # fmt: skip
def test_classes_come_back_as_they_came(model, classes):
    targets = [classes[i % len(classes)] for i in range(60)]
    estimator = made("classifier", model).fit(TEXTS, targets)
    assert list(estimator.classes_) == sorted(set(classes))
    assert estimator.classes_.dtype == np.unique(targets).dtype
    assert set(estimator.predict(TEXTS)) <= set(classes)
    assert estimator.predict_proba(TEXTS).shape == (60, len(set(classes)))


def test_it_learns(model):
    rows = reviews(200)
    texts, labels = [r["text"] for r in rows], [r["label"] for r in rows]
    estimator = TextClassifier(model, epochs=6, lr=3e-3, batch_examples=16).fit(texts, labels)
    assert estimator.score(TEXTS, LABELS) > 0.9


def test_pairs_are_taken(model):
    pairs = list(zip(TEXTS, TEXTS[::-1], strict=True))
    estimator = made("classifier", model).fit(pairs, LABELS)
    assert estimator.predict(pd.DataFrame(pairs)).shape == (60,)
    with pytest.raises(LangueError, match="pairs"):
        estimator.predict(TEXTS)


def test_a_regressor_and_a_tagger(fitted):
    regressor = fitted["regressor"]
    assert is_regressor(regressor) and regressor.predict(TEXTS).shape == (60,)
    assert regressor.predict(TEXTS[:1]).dtype == np.float64 and regressor.score(TEXTS, NUMBERS) <= 1
    tags = fitted["tagger"].predict(WORDS)
    assert [len(each) for each in tags] == [len(each) for each in WORDS]
    assert {tag for each in tags for tag in each} <= {"O", "B-X", "I-X"}
    assert fitted["tagger"].score(WORDS, tags) == pytest.approx(1.0) or all(
        set(each) == {"O"} for each in tags
    )


# --- kept ---


@pytest.mark.parametrize("name", KINDS)
def test_pickled_saved_and_loaded_is_the_same(fitted, tmp_path, name):
    estimator = fitted[name]
    items = KINDS[name][1]
    expected = estimator.predict(items)
    again = pickle.loads(pickle.dumps(estimator))
    assert same(again.predict(items), expected)
    assert same(pickle.loads(pickle.dumps(again)).predict(items), expected)
    estimator.save(tmp_path / "saved")
    loaded = type(estimator).load(tmp_path / "saved")
    assert same(loaded.predict(items), expected)
    assert loaded.get_params() == estimator.get_params()
    assert langue.load(tmp_path / "saved").predict(items[:1])
    other = TextRegressor if name != "regressor" else TextClassifier
    with pytest.raises(RunError, match="it is no"):
        other.load(tmp_path / "saved")
    with pytest.raises(RunError, match="no estimator"):
        other.load(tmp_path)


def test_a_pickle_holds_no_object_of_weights(fitted):
    """Only classes of ours and of numpy; what numbers there are are the bytes of files."""
    import pickletools

    content = pickle.dumps(fitted["classifier"], protocol=4)
    strings = [arg for op, arg, _ in pickletools.genops(content) if op.name.endswith("UNICODE")]
    assert not any(text.startswith("torch") for text in strings)
    assert "model.safetensors" in strings


def test_skops_keeps_it(fitted, tmp_path):
    io = pytest.importorskip("skops.io")
    io.dump(fitted["classifier"], tmp_path / "it.skops")
    unknown = io.get_untrusted_types(file=tmp_path / "it.skops")
    assert unknown == ["langue.estimators.TextClassifier"]
    again = io.load(tmp_path / "it.skops", trusted=unknown)
    assert np.array_equal(again.predict(TEXTS), fitted["classifier"].predict(TEXTS))


def test_a_hostile_state_writes_nowhere_else(fitted, tmp_path):
    state = fitted["classifier"].__getstate__()
    state["model_files"]["../../escaped"] = np.zeros(3, np.uint8)
    with pytest.raises(RunError, match="escaped"):
        TextClassifier().__setstate__(state)


# --- in company ---


@pytest.mark.slow  # which joblib starts, and each imports PyTorch
def test_cross_validation_in_two_processes(model):
    scores = cross_val_score(made("classifier", model), TEXTS, LABELS, cv=2, n_jobs=2)
    assert scores.shape == (2,) and np.isfinite(scores).all()
    alone = cross_val_score(made("classifier", model), TEXTS, LABELS, cv=2)
    assert np.allclose(scores, alone)


def test_a_tagger_is_cross_validated(model):
    scores = cross_val_score(made("tagger", model), WORDS, TAGS, cv=2)
    assert scores.shape == (2,) and np.isfinite(scores).all()


def test_a_grid_is_searched(model):
    search = GridSearchCV(made("classifier", model), {"lr": [1e-6, 3e-3]}, cv=2)
    search.fit(np.array(TEXTS), np.array(LABELS))
    assert search.best_params_["lr"] in (1e-6, 3e-3)
    assert pickle.loads(pickle.dumps(search)).predict(TEXTS).shape == (60,)


def test_vectors_are_a_step_of_a_pipeline(model):
    embedder = TextEmbedder(model, pool="mean")
    with pytest.raises(NotFittedError):
        embedder.transform(TEXTS)
    pipeline = make_pipeline(embedder, LogisticRegression()).fit(TEXTS, LABELS)
    assert pipeline.predict(TEXTS).shape == (60,)
    vectors = pipeline[0].transform(TEXTS)
    assert np.array_equal(vectors, langue.load(model).encode(TEXTS, pool="mean"))
    names = pipeline[0].get_feature_names_out()
    assert len(names) == vectors.shape[1] == 32 and names[3] == "embedding3"
    again = pickle.loads(pickle.dumps(pipeline))
    assert np.array_equal(again.predict(TEXTS), pipeline.predict(TEXTS))
    table = TextEmbedder(model).set_output(transform="pandas").fit_transform(TEXTS[:3])
    assert list(table.columns) == list(names)
    search = GridSearchCV(
        make_pipeline(TextEmbedder(model), LogisticRegression()),
        {"textembedder__pool": ["mean", "first"]},
        cv=2,
    ).fit(TEXTS, LABELS)
    assert search.best_score_ > 0.4


def test_twenty_clones_leave_no_memory_behind(model):
    def grown(times):
        for _ in range(times):
            clone(TextClassifier(model, max_steps=1, batch_examples=4)).fit(TEXTS[:8], LABELS[:8])
        gc.collect()
        return resident_memory()

    before = grown(4)
    assert grown(20) - before < 30 << 20


def test_nothing_is_shown_unless_it_is_asked_for(model, capfd):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        made("classifier", model).fit(TEXTS, LABELS)
    assert capfd.readouterr() == ("", "")
    TextClassifier(model, verbose=True, **SMALL).fit(TEXTS, LABELS)
    assert "dev loss" in capfd.readouterr().err


def test_the_face_lists_them():
    assert {"TextClassifier", "TextRegressor", "Tagger", "TextEmbedder"} <= set(dir(langue))
