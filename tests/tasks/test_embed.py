"""Embeddings against sentence-transformers (losses, vectors, folders) and against slow, obvious
statements of the same."""

import json
import math
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file
from scipy import stats
from torch.nn import functional as F

from langue.data.batch import examples_of, parts_of
from langue.data.encoded import Encoded
from langue.data.loader import RowGroups
from langue.errors import LangueError, SettingsError
from langue.runs.execute import Run
from langue.runs.model import load
from langue.runs.prepare import build
from langue.settings.sections import Settings, TrainSettings, resolve
from langue.statistics import retrieval
from langue.statistics.ngrams import tokens
from langue.tasks import OPTIONS, TASKS
from langue.tasks import embedding_losses as losses
from langue.tasks.embed import Embed
from langue.text.read.source import read
from langue.verbs.evaluate import evaluate
from langue.verbs.finetune import finetune
from langue.verbs.mine_negatives import mine_negatives
from langue.verbs.quickstart import embedded_model
from tests.contract.task_rows import answered, compared, opposed
from tests.contract.test_tasks import prepared_from
from tests.tiny import tiny_bert, write_jsonl

QUICK = {
    "train.max_steps": 3,
    "train.precision": "fp32",
    "model.dropout": 0.0,
    "model.attention_dropout": 0.0,
    "data.duplicates": False,
}
TEXTS = ["a good film", "the plot was dull and very long", "warm", "a good film"]


def settings(**words: Any) -> Settings:
    chosen = QUICK | {key.replace("__", "."): value for key, value in words.items()}
    return resolve(chosen, options=TASKS["embed"].Options, elsewhere=OPTIONS)


def trained(model: Path, rows: Any, out: Path, **words: Any) -> Run:
    chosen = QUICK | {key.replace("__", "."): value for key, value in words.items()}
    return finetune("embed", model=model, data={"train": rows, "test": rows}, out=out, **chosen)


def of_rows(vectors: torch.Tensor, scores: torch.Tensor | None, texts: Any = None) -> Any:
    """A batch of n rows of k vectors (n, k, D), shuffled as batches are."""
    n, k, dim = vectors.shape
    row = torch.arange(n).repeat_interleave(k)
    place = torch.arange(k).repeat(n)
    text = torch.arange(n * k) if texts is None else torch.as_tensor(texts).reshape(-1)
    known = np.full((n, k), math.nan)
    if scores is not None:
        known[:, 1:] = scores.reshape(n, -1).numpy()
    bits = torch.as_tensor(losses.score_bits(known.reshape(-1)))
    order = torch.randperm(n * k)
    targets = torch.stack([row, place, text, bits], 1)[order]
    return losses.Compared.of_batch(vectors.reshape(n * k, dim)[order], targets)


def reference(name: str, **words: Any) -> Any:
    module = pytest.importorskip("sentence_transformers.sentence_transformer.losses")
    return getattr(module, name)(model=None, **words)


def same_loss(ours: Any, vectors: torch.Tensor, theirs: Any, labels: Any) -> None:
    """Loss and gradient of rows of vectors (n, k, D)."""
    leaf = vectors.clone().requires_grad_()
    total, count = ours(leaf)
    (total / count).backward()
    other = vectors.clone().requires_grad_()
    expected = theirs.compute_loss_from_embeddings(list(other.unbind(1)), labels)
    expected.backward()
    assert float(total) / count == pytest.approx(float(expected), rel=1e-5)
    torch.testing.assert_close(leaf.grad, other.grad, rtol=1e-4, atol=1e-6)


def drawn(n: int, k: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(n, k, 12, generator=torch.Generator().manual_seed(seed))


@pytest.mark.parametrize("seed", range(3))
def test_cosine_and_cosent_are_those_of_sentence_transformers(seed: int) -> None:
    pytest.importorskip("sentence_transformers")
    vectors = drawn(9, 2, seed)
    scores = torch.tensor([0.1, 0.1, 0.5, 0.9, 1.0, 0.0, 0.3, 0.3, 0.7])

    class Cosine:
        """Whose class needs a model for its vectors."""

        @staticmethod
        def compute_loss_from_embeddings(parts: Any, labels: Any) -> Any:
            return F.mse_loss(F.cosine_similarity(*parts), labels)

    same_loss(lambda v: losses.cosine(of_rows(v, scores)), vectors, Cosine, scores)
    theirs = reference("CoSENTLoss", scale=20.0)
    same_loss(lambda v: losses.cosent(of_rows(v, scores), 20.0), vectors, theirs, scores)


@pytest.mark.parametrize("symmetric", [False, True])
@pytest.mark.parametrize("k", [2, 3, 5])
def test_in_batch_negatives_are_those_of_sentence_transformers(symmetric: bool, k: int) -> None:
    both = {"directions": ("query_to_doc", "doc_to_query"), "partition_mode": "per_direction"}
    theirs = reference("MultipleNegativesRankingLoss", scale=20.0, **(both if symmetric else {}))
    same_loss(
        lambda v: losses.in_batch(of_rows(v, None), 20.0, symmetric), drawn(7, k), theirs, None
    )


def test_triplets_and_margins_are_those_of_sentence_transformers() -> None:
    module = pytest.importorskip("sentence_transformers.sentence_transformer.losses")
    metric = module.TripletDistanceMetric.COSINE
    theirs = reference("TripletLoss", distance_metric=metric, triplet_margin=0.5)
    same_loss(lambda v: losses.triplet(of_rows(v, None), 0.5), drawn(8, 3), theirs, None)
    for k in (3, 5):
        scores = torch.rand(8, k - 1, generator=torch.Generator().manual_seed(k))
        labels = scores[:, :1] - scores[:, 1:]
        same_loss(
            lambda v, s=scores: losses.margin_mse(of_rows(v, s)),
            drawn(8, k),
            reference("MarginMSELoss"),
            labels[:, 0] if k == 3 else scores,
        )


def test_texts_that_answer_are_no_negatives() -> None:
    """By the formula: rows 0 and 1 have one answer, rows 2 and 3 one query, and the negative of row
    4 is what row 0 asks."""
    vectors = F.normalize(drawn(5, 3), dim=-1)
    texts = [[0, 10, 20], [1, 10, 21], [2, 12, 22], [2, 13, 23], [4, 14, 0]]
    loss, count = losses.in_batch(of_rows(vectors, None, texts), 20.0, False)
    expected = 0.0
    for row, (query, answer, _) in enumerate(texts):
        answers = {each[1] for each in texts if each[0] == query}
        logits = [20.0 * vectors[row, 0] @ vectors[row, 1]]
        for other, (_, *documents) in enumerate(texts):
            for place, text in enumerate(documents, start=1):
                if (other, place) != (row, 1) and text not in answers | {query}:
                    logits.append(20.0 * vectors[row, 0] @ vectors[other, place])
        expected += float(torch.logsumexp(torch.stack(logits), 0) - logits[0])
        assert answer in answers
    assert count == 5
    assert float(loss) == pytest.approx(expected, rel=1e-5)


def test_matryoshka_adds_the_losses_of_shorter_vectors() -> None:
    module = pytest.importorskip("sentence_transformers.sentence_transformer.losses")
    vectors = drawn(6, 2)
    task = Embed(
        Embed.Options(loss="in_batch", matryoshka=(8, 4), normalize=True), has_scores=False
    )
    compared = of_rows(vectors, None)
    total, count = task._loss_of(compared)
    for size in (8, 4):
        total = total + task._loss_of(compared.shortened(size, True))[0]
    plain = module.MultipleNegativesRankingLoss(model=None, scale=20.0)
    from sentence_transformers.sentence_transformer.losses.matryoshka import shrink

    expected = sum(
        plain.compute_loss_from_embeddings([shrink(part, d) for part in vectors.unbind(1)], None)
        for d in (12, 8, 4)
    )
    assert float(total) / count == pytest.approx(float(expected), rel=1e-5)


# --- training ---


@pytest.fixture(scope="module")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tiny_bert(tmp_path_factory.mktemp("embed") / "bert")
    options = json.loads((folder / "tokenizer_config.json").read_text())
    named = {f"{kind}_token": f"[{kind.upper()}]" for kind in ("cls", "sep", "pad", "mask", "unk")}
    (folder / "tokenizer_config.json").write_text(json.dumps(options | named))
    return folder


@pytest.mark.parametrize("rows", [answered(12), opposed(16), compared(12)])
def test_cached_gradients_are_the_gradients(rows: Any, tiny: Path) -> None:
    found = []
    for tokens_at_once in (0, 8, 40):
        chosen = settings(task__cached_tokens=tokens_at_once, task__matryoshka=(16,))
        prepared = prepared_from("embed", tiny, {"train": rows, "dev": rows}, chosen)
        network = build(prepared).train()
        source = prepared.task.batches(prepared.train, prepared.settings)
        batch = source.batch(np.arange(8), 0, torch.device("cpu"))
        outcome = prepared.task.forward(network, batch)
        (outcome.loss / outcome.count).backward()
        grads = {n: w.grad.clone() for n, w in network.named_parameters() if w.grad is not None}
        found.append((float(outcome.loss), outcome.count, grads))
    for loss, count, grads in found[1:]:
        assert (loss, count) == pytest.approx(found[0][:2], rel=1e-5)
        assert grads.keys() == found[0][2].keys()
        for name, grad in grads.items():
            torch.testing.assert_close(grad, found[0][2][name], rtol=1e-4, atol=1e-6)


def test_cached_gradients_are_of_the_dropout_that_gave_the_vectors(tiny: Path) -> None:
    """Of the loss that was reported: a step against the gradient lowers it by the gradient's
    square."""
    chosen = settings(task__cached_tokens=20).model_copy()
    chosen = chosen.model_copy(update={"model": chosen.model.model_copy(update={"dropout": 0.3})})
    prepared = prepared_from("embed", tiny, {"train": answered(8), "dev": answered(8)}, chosen)
    network = build(prepared).train()
    source = prepared.task.batches(prepared.train, prepared.settings)
    batch = source.batch(np.arange(8), 0, torch.device("cpu"))

    def loss() -> torch.Tensor:
        torch.manual_seed(3)
        return prepared.task.forward(network, batch).loss

    before = loss()
    before.backward()
    grads = [w.grad.clone() for w in network.parameters() if w.grad is not None]
    square = sum(float(grad.square().sum()) for grad in grads)
    step = 1e-4 / square
    with torch.no_grad():
        for weight in network.parameters():
            if weight.grad is not None:
                weight -= step * weight.grad
    assert float(before - loss()) == pytest.approx(1e-4, rel=0.1)


def test_parts_of_a_batch_are_its_sequences() -> None:
    chosen = examples_of([[1, 2, 3], [4], [5, 6], [7, 8, 9, 1]])
    source = RowGroups(Encoded(chosen, 2, row=np.array([0, 0, 1, 1])), TrainSettings())
    batch = source.batch(np.array([1, 0]), 0, torch.device("cpu"))
    parts = parts_of(batch, 4)
    assert torch.equal(torch.cat([part.tokens for part in parts]), batch.tokens)
    assert [part.groups for part in parts] == [[(0, 1, 1), (1, 1, 2)], [(0, 1, 3)], [(0, 1, 4)]]
    assert np.concatenate([part.rows for part in parts]).tolist() == batch.rows.tolist()


def test_a_row_is_never_divided_and_none_is_left_out() -> None:
    generator = np.random.default_rng(0)
    row = np.repeat(np.arange(40), generator.integers(2, 5, 40))
    made = examples_of([[1] * int(n) for n in generator.integers(1, 9, len(row))])
    for by_length in (True, False):
        chosen = TrainSettings(batch_tokens=60, batch_examples=4)
        source = RowGroups(Encoded(made, 40, row=row), chosen, by_length)
        seen: list[int] = []
        for rows in source.plan(0):
            batch = source.batch(rows, 0, torch.device("cpu"))
            assert len(rows) <= 4 and batch.n_tokens <= 60
            held = sorted(batch.rows.tolist())
            assert held == sorted(np.flatnonzero(np.isin(row, rows)).tolist())
            seen += held
        assert sorted(seen) == list(range(len(row)))
        assert [p.tolist() for p in source.plan(1)] == [p.tolist() for p in source.plan(1)]


# --- folders ---


def vectors_of(folder: Path, texts: list[str], **words: Any) -> np.ndarray:
    library = pytest.importorskip("sentence_transformers")
    return library.SentenceTransformer(str(folder), device="cpu").encode(texts, **words)


@pytest.mark.parametrize("pooling", ["mean", "first", "max", "last"])
def test_a_run_gives_sentence_transformers_the_same_vectors(
    pooling: str, tiny: Path, tmp_path: Path
) -> None:
    normalize = pooling != "max"
    words = {"task__pooling": pooling, "task__normalize": normalize, "data__max_length": 8}
    run = trained(tiny, answered(12), tmp_path / "run", **words)
    model = run.load()
    ours = model.encode(TEXTS)
    np.testing.assert_allclose(vectors_of(run.folder, TEXTS), ours, atol=1e-6)
    assert np.allclose(np.linalg.norm(ours, axis=1), 1, atol=1e-5) == normalize
    single = np.array([each["embedding"] for each in model.predict(TEXTS)])
    np.testing.assert_allclose(single, ours, atol=1e-6)
    model.save(tmp_path / "saved")
    np.testing.assert_allclose(load(tmp_path / "saved").encode(TEXTS), ours, atol=1e-6)


def test_the_layout_is_the_one_that_old_and_new_versions_read(tiny: Path, tmp_path: Path) -> None:
    run = trained(tiny, answered(12), tmp_path / "run", task__query_prompt="the ")
    read = {
        name: json.loads((run.folder / name).read_text())
        for name in (
            "modules.json",
            "1_Pooling/config.json",
            "sentence_bert_config.json",
            "config_sentence_transformers.json",
        )
    }
    kinds = [(each["path"], each["type"]) for each in read["modules.json"]]
    assert kinds == [
        ("", "sentence_transformers.models.Transformer"),
        ("1_Pooling", "sentence_transformers.models.Pooling"),
        ("2_Normalize", "sentence_transformers.models.Normalize"),
    ]
    assert read["1_Pooling/config.json"] == {
        "word_embedding_dimension": 32,
        "pooling_mode_cls_token": False,
        "pooling_mode_max_tokens": False,
        "pooling_mode_mean_tokens": True,
        "pooling_mode_mean_sqrt_len_tokens": False,
        "pooling_mode_weightedmean_tokens": False,
        "pooling_mode_lasttoken": False,
        "include_prompt": True,
    }
    assert read["sentence_bert_config.json"] == {"max_seq_length": 64, "do_lower_case": False}
    assert read["config_sentence_transformers.json"]["prompts"] == {
        "query": "the ",
        "document": "the ",
    }
    assert json.loads((run.folder / "config.json").read_text())["architectures"] == ["BertModel"]
    ours = run.load().encode(TEXTS, prompt_name="query")
    np.testing.assert_allclose(vectors_of(run.folder, TEXTS, prompt_name="query"), ours, atol=1e-6)


def test_a_folder_of_sentence_transformers_is_trained_as_it_pools(
    tiny: Path, tmp_path: Path
) -> None:
    library = pytest.importorskip("sentence_transformers")
    from sentence_transformers.base.modules import Transformer
    from sentence_transformers.sentence_transformer.modules import Pooling

    body = Transformer(str(tiny), max_seq_length=16)
    prompts = {"query": "the ", "document": "a "}
    library.SentenceTransformer(
        modules=[body, Pooling(32, pooling_mode="cls")], device="cpu", prompts=prompts
    ).save(str(tmp_path / "st"))
    run = trained(tmp_path / "st", answered(12), tmp_path / "run", train__lr=1e-12)
    task = run.load().task
    assert isinstance(task, Embed)
    assert (task.settings.pooling, task.settings.normalize) == ("first", False)
    assert (task.settings.query_prompt, task.settings.document_prompt) == ("the ", "a ")
    began = load(tmp_path / "st")
    for name in ("query", "document"):
        same = began.encode(TEXTS, prompt_name=name), run.load().encode(TEXTS, prompt_name=name)
        np.testing.assert_allclose(*same, atol=1e-5)
    # scores do not speak of queries, whose prompts stay as they were
    scored = trained(tmp_path / "st", compared(12), tmp_path / "scored", train__lr=1e-12).load()
    same = began.encode(TEXTS, prompt_name="query"), scored.encode(TEXTS, prompt_name="query")
    np.testing.assert_allclose(*same, atol=1e-5)
    np.testing.assert_allclose(began.encode(TEXTS), scored.encode(TEXTS), atol=1e-5)
    # what the body has besides, for others
    pooler = load_file(run.folder / "model.safetensors")["pooler.dense.weight"]
    began_with = load_file(tmp_path / "st" / "model.safetensors")["pooler.dense.weight"]
    assert torch.equal(pooler, began_with)
    # a run that is trained further stays as it is
    again = trained(run.folder, answered(12), tmp_path / "again", train__lr=1e-12)
    np.testing.assert_allclose(again.load().encode(TEXTS), run.load().encode(TEXTS), atol=1e-5)
    assert again.load().task.settings.query_prompt == "the "


# --- rows ---


def refused(rows: Any, tiny: Path, **words: Any) -> str:
    with pytest.raises(LangueError) as caught:
        prepared_from("embed", tiny, rows, settings(**words))
    message = str(caught.value)
    assert "\n" not in message
    return message


def test_names_that_people_give_the_columns(tiny: Path) -> None:
    rows = [{"anchor": r["text"], "positive": r["pair"]} for r in answered(8)]
    prepared = prepared_from("embed", tiny, {"train": rows, "dev": rows}, settings())
    assert prepared.task.settings.loss == "in_batch"
    named = [{"question": r["text"], "answer": r["pair"]} for r in answered(8)]
    message = refused({"train": named, "dev": named}, tiny)
    assert "--columns text=question,pair=answer" in message


def test_scores_of_another_scale_are_divided_and_that_is_said(tiny: Path) -> None:
    def rows(most: float, least: float = 0.0) -> Any:
        made = [row | {"score": least + row["score"] * (most - least)} for row in compared(8)]
        return {"train": made, "dev": made}

    for most, scale in ((1.0, 1.0), (5.0, 5.0), (4.2, 5.0), (9.0, 10.0), (77.0, 100.0)):
        prepared = prepared_from("embed", tiny, rows(most), settings())
        golds = [gold.scores[0] for gold in prepared.train.golds]
        assert max(golds) == pytest.approx(most / scale)
        said = any("divided by" in note for note in prepared.source.notes)
        assert said == (scale != 1)
    assert prepared_from("embed", tiny, rows(1.0, -1.0), settings()).task.settings.score_max == 1
    assert "on no scale that is known" in refused(rows(300.0), tiny)
    prepared = prepared_from("embed", tiny, rows(300.0), settings(task__score_max=300))
    assert prepared.task.settings.score_max == 300
    wider = {"train": rows(5.0)["train"], "dev": rows(8.0)["dev"]}
    message = refused(wider, tiny)
    assert "is not on the scale of training, which ends at 5" in message and "row 6" in message


def test_what_cannot_be_learnt_from_is_said(tiny: Path) -> None:
    same = [row | {"score": 1.0} for row in compared(8)]
    assert "every training row has the score 1" in refused({"train": same, "dev": same}, tiny)
    pairs = {"train": answered(8), "dev": answered(8)}
    assert "does not learn from pairs without scores" in refused(pairs, tiny, task__loss="cosine")
    message = refused(pairs, tiny, task__matryoshka=(32,))
    assert "give sizes from 1 to 31" in message
    without = {"train": compared(8), "dev": answered(8)}
    assert "the row has no score, and training had" in refused(without, tiny)
    with pytest.raises(SettingsError):
        settings(task__loss="contrastive")


def test_negatives_that_stand_twice_are_taken_once_and_counted(tiny: Path) -> None:
    rows = [row | {"negatives": ["a night", "a day", "a night"]} for row in answered(8)]
    prepared = prepared_from("embed", tiny, {"train": rows, "dev": rows}, settings())
    assert all(len(gold.documents) == 3 for gold in prepared.train.golds)
    notes = [note for note in prepared.source.notes if "stand twice" in note]
    assert len(notes) == 2 and "8 negatives" in notes[0]
    one = [{**rows[0], "negatives": [rows[0]["text"]]}, *rows[1:]]
    assert "a negative is the text itself" in refused({"train": one, "dev": rows}, tiny)


# --- statistics ---


def slow_bm25(documents: list[str], query: str) -> list[float]:
    words = [tokens(text) for text in documents]
    mean = sum(map(len, words)) / len(words) or 1.0
    found = []
    for own in words:
        score = 0.0
        for word in tokens(query):
            holding = sum(word in other for other in words)
            if holding:
                idf = math.log(1 + (len(words) - holding + 0.5) / (holding + 0.5))
                often = own.count(word)
                slow = 1.2 * (1 - 0.75 + 0.75 * len(own) / mean)
                score += idf * often / (often + slow)
        found.append(score)
    return found


def slow_metrics(scores: list[float], right: set[int]) -> dict[str, float]:
    """Of one query: documents in order, of equal ones those that are right last."""
    order = sorted(range(len(scores)), key=lambda place: (-scores[place], place in right))
    hits = [place in right for place in order]
    gained = sum(hit / math.log2(at + 2) for at, hit in enumerate(hits[:10]))
    ideal = sum(1 / math.log2(at + 2) for at in range(min(10, len(right))))
    return {
        "ndcg@10": gained / ideal,
        "mrr": 1 / (hits.index(True) + 1),
        "recall@1": sum(hits[:1]) / len(right),
        "recall@10": sum(hits[:10]) / len(right),
    }


@pytest.mark.parametrize("seed", range(20))
def test_bm25_and_the_metrics_are_those_of_the_formulas(seed: int) -> None:
    generator = np.random.default_rng(seed)
    words = ["good", "bad", "film", "plot", "好", "电影", "don't", "7"]

    def text(least: int) -> str:
        return " ".join(generator.choice(words, generator.integers(least, 6)))

    documents = ["", "", *(text(0) for _ in range(int(generator.integers(1, 25))))]
    queries = ["", "unheard of", *(text(1) for _ in range(4))]
    scores = retrieval.BM25(documents).scores(queries)
    expected = np.array([slow_bm25(documents, query) for query in queries])
    np.testing.assert_allclose(scores, expected, atol=1e-12)
    relevant = [
        generator.choice(len(documents), min(len(documents), n), replace=False)
        for n in generator.integers(1, 13, len(queries))
    ]
    found = retrieval.values(retrieval.ranks(scores.round(6), relevant))
    for place, own in enumerate(scores.round(6)):
        for name, value in slow_metrics(own.tolist(), set(relevant[place].tolist())).items():
            assert found[name][place] == pytest.approx(value), (name, place)


def test_no_document_has_a_word() -> None:
    assert retrieval.BM25(["", ""]).scores(["a"]).tolist() == [[0.0, 0.0]]
    assert retrieval.tfidf_cosines(["", ""], ["", ""], []).tolist() == [0.0, 0.0]
    cosines = retrieval.tfidf_cosines(["a b", "a", ""], ["a b", "c", "a"], ["d"])
    assert cosines == pytest.approx([1.0, 0.0, 0.0])


def test_queries_and_documents_that_stand_twice_are_one() -> None:
    whole = retrieval.collect(["q", "r", "q"], [["a", "n"], ["b", "a"], ["c"]])
    assert whole.queries == ["q", "r"] and whole.first.tolist() == [0, 1]
    assert whole.documents == ["a", "n", "b", "c"]
    assert [each.tolist() for each in whole.relevant] == [[0, 3], [2]]
    assert whole.places == [(0, 0), (0, 1), (1, 0), (2, 0)]


def test_ndcg_mrr_and_recall_are_those_of_sentence_transformers() -> None:
    pytest.importorskip("sentence_transformers")
    from sentence_transformers.sentence_transformer.evaluation import (
        InformationRetrievalEvaluator,
    )

    generator = np.random.default_rng(0)
    queries, documents = generator.normal(size=(2, 30, 6))
    relevant = [generator.choice(30, n, replace=False) for n in generator.integers(1, 4, 30)]
    ranked = retrieval.cosine_ranks(queries, documents, relevant)
    found = {name: float(each.mean()) for name, each in retrieval.values(ranked).items()}
    theirs = InformationRetrievalEvaluator(
        {str(i): str(i) for i in range(30)},
        {str(i): str(i) for i in range(30)},
        {str(i): {str(j) for j in own} for i, own in enumerate(relevant)},
        mrr_at_k=[30],
        ndcg_at_k=[10],
        precision_recall_at_k=[1, 10],
        accuracy_at_k=[1],
        map_at_k=[10],
    )
    order = np.argsort(-retrieval.unit(queries) @ retrieval.unit(documents).T, axis=1)
    results = [
        [{"corpus_id": str(j), "score": float(30 - at)} for at, j in enumerate(own)]
        for own in order
    ]
    expected = theirs.compute_metrics(results)
    assert found["ndcg@10"] == pytest.approx(expected["ndcg@k"][10], abs=1e-9)
    assert found["mrr"] == pytest.approx(expected["mrr@k"][30], abs=1e-9)
    for k in (1, 10):
        assert found[f"recall@{k}"] == pytest.approx(expected["recall@k"][k])


# --- use ---


def test_similarities_and_what_is_neither_text_nor_pair(tiny: Path, tmp_path: Path) -> None:
    model = trained(tiny, compared(16), tmp_path / "run").load()
    vectors = model.encode(TEXTS)
    pairs = model.predict([(TEXTS[0], TEXTS[1]), {"text": TEXTS[0], "pair": TEXTS[3]}, None])
    assert pairs[0]["score"] == pytest.approx(float(vectors[0] @ vectors[1]), abs=1e-5)
    assert pairs[1] == {"label": "similarity", "score": pytest.approx(1.0)}
    assert pairs[2] is None
    with pytest.raises(LangueError, match="neither a text nor a pair"):
        model.predict([("a", "b", "c")])


def of_published(shared_data: Any, limit: int, **words: Any) -> Any:
    """What MiniLM is judged as on STS-B before any training."""
    folder = shared_data("stsb")
    rows = read(folder, need=("text", "pair"), optional=("score",), synonyms={})
    data = {"train": rows.train.rows.select(range(64)), "test": rows.test.rows}
    data = {name: each.to_list() for name, each in data.items()}
    data["test"] = data["test"][:limit]
    prepared = prepared_from("embed", embedded_model(), data, settings(**words))
    network = build(prepared).eval()
    predictions, _ = prepared.task.apply(
        network, prepared.encoded["test"], device=torch.device("cpu"), dtype=torch.float32
    )
    return prepared, predictions, data["test"]


def test_minilm_before_training_is_as_sentence_transformers_has_it(shared_data: Any) -> None:
    prepared, predictions, rows = of_published(shared_data, 40)
    assert prepared.task.settings.normalize
    theirs = vectors_of(embedded_model(), [row[name] for row in rows for name in ("text", "pair")])
    np.testing.assert_allclose(np.concatenate(predictions), theirs, atol=1e-6)
    found = prepared.task.judge(prepared.encoded["test"].golds, predictions)
    expected = stats.spearmanr((theirs[::2] * theirs[1::2]).sum(1), [row["score"] for row in rows])
    assert found.metrics["spearman"] == pytest.approx(expected.statistic, abs=1e-6)


@pytest.mark.slow
def test_minilm_on_sts(shared_data: Any) -> None:
    """The figure of sentence-transformers 6.2 on test."""
    prepared, predictions, _ = of_published(shared_data, 2000)
    found = prepared.task.metrics(prepared.encoded["test"].golds, predictions)
    assert found["spearman"] == pytest.approx(0.8203, abs=1e-4)


def test_shorter_vectors_are_judged_and_have_length_one(tiny: Path, tmp_path: Path) -> None:
    run = trained(tiny, answered(12), tmp_path / "run", task__matryoshka="16,8")
    model = run.load()
    whole = model.encode(TEXTS)
    short = model.encode(TEXTS, dim=8)
    expected = whole[:, :8] / np.linalg.norm(whole[:, :8], axis=1, keepdims=True)
    np.testing.assert_allclose(short, expected, atol=1e-6)
    library = pytest.importorskip("sentence_transformers")
    theirs = library.SentenceTransformer(str(run.folder), device="cpu", truncate_dim=8)
    theirs = theirs.encode(TEXTS, normalize_embeddings=True)
    np.testing.assert_allclose(short, theirs, atol=1e-6)
    with pytest.raises(LangueError, match="the vectors have 32 elements"):
        model.encode(TEXTS, dim=33)
    assert "By size of the vectors" in (run.folder / "report.html").read_text()


def test_a_published_folder_is_judged_as_it_is(tiny: Path, tmp_path: Path) -> None:
    """By scores of any scale, or by what it finds; and it is saved as it came."""
    run = trained(tiny, compared(12), tmp_path / "run")
    folder = tmp_path / "published"
    ours = shutil.ignore_patterns("langue.json", "recipe.toml", "*.html", "checkpoints")
    shutil.copytree(run.folder, folder, ignore=ours)
    rows = [row | {"score": 5 * row["score"]} for row in compared(16)]
    data = write_jsonl(tmp_path / "scored.jsonl", rows)
    by_run = evaluate(run.folder, data=write_jsonl(tmp_path / "one.jsonl", compared(16)))
    found = evaluate(folder, data=data)
    assert found["metrics"] == pytest.approx(by_run["metrics"], abs=1e-3)  # in bf16
    assert found["baseline"]["name"] == "cosine of tf-idf"
    asked = evaluate(folder, data=write_jsonl(tmp_path / "pairs.jsonl", answered(8)))
    assert asked["main_metric"] == "ndcg@10" and asked["baseline"]["name"] == "BM25"
    model = load(folder)
    assert model.predict([("warm", "warm")])[0]["score"] == pytest.approx(1.0)
    model.save(tmp_path / "again")
    names = {each.name for each in (tmp_path / "again").iterdir()}
    assert "langue.json" not in names and "modules.json" in names


def test_mined_negatives_are_the_nearest_that_do_not_answer(tiny: Path, tmp_path: Path) -> None:
    run = trained(tiny, answered(12), tmp_path / "run")
    pairs = [*answered(12), {"text": answered(1)[0]["text"], "pair": "a second answer"}]
    data = write_jsonl(tmp_path / "pairs.jsonl", pairs)
    more = write_jsonl(tmp_path / "more.jsonl", [{"text": each} for each in TEXTS])
    words = {"model": run.folder, "data": data, "documents": more, "number": 2, "skip": 1}
    out = tmp_path / "mined.jsonl"
    found = mine_negatives(out=out, margin=0.1, **words)
    rows = [json.loads(line) for line in out.read_text().splitlines()]
    model = run.load()
    every = list(dict.fromkeys([*(row["pair"] for row in pairs), *TEXTS]))
    documents = model.encode(every)
    answers = {
        text: {r["pair"] for r in pairs if r["text"] == text}
        for text in dict.fromkeys(row["text"] for row in pairs)
    }
    too_near = 0
    for row, pair in zip(rows, pairs, strict=True):
        assert (row["anchor"], row["positive"]) == (pair["text"], pair["pair"])
        cosines = documents @ model.encode([pair["text"]])[0]
        limit = cosines[every.index(pair["pair"])] * 0.9
        order = [every[place] for place in np.argsort(-cosines)]
        others = [text for text in order if text not in answers[pair["text"]]][1:]
        kept = [text for text in others if cosines[every.index(text)] <= limit]
        too_near += len(others) - len(kept)
        names = [f"negative_{place}" for place in (1, 2) if f"negative_{place}" in row]
        assert [row[name] for name in names] == kept[:2]
    assert found["too_near"] == too_near and found["pairs"] == 13
    # what is written is read
    prepared = prepared_from("embed", tiny, {"train": rows, "dev": rows}, settings())
    assert sum(len(gold.documents) - 1 for gold in prepared.train.golds) == found["negatives"]
    with pytest.raises(SettingsError):
        mine_negatives(out=tmp_path / "other", **(words | {"number": 0}))


def test_a_prompt_of_scored_pairs_is_the_default_one(tiny: Path, tmp_path: Path) -> None:
    run = trained(tiny, compared(12), tmp_path / "run", task__query_prompt="the ")
    model = run.load()
    vectors = model.encode(["warm film", "cold film"])
    np.testing.assert_allclose(vectors, model.encode(["the warm film", "the cold film"], prompt=""))
    pair = model.predict([("warm film", "cold film")])[0]["score"]
    assert pair == pytest.approx(float(vectors[0] @ vectors[1]), abs=1e-5)
    np.testing.assert_allclose(vectors_of(run.folder, ["warm film"]), vectors[:1], atol=1e-6)


def test_a_finished_run_is_finished_again_with_what_it_has_settled(
    tiny: Path, tmp_path: Path
) -> None:
    data = write_jsonl(tmp_path / "train.jsonl", answered(30))
    words = QUICK | {"task.matryoshka": "16,8", "task.query_prompt": "the "}
    run = finetune("embed", model=tiny, data=data, out=tmp_path / "run", **words)
    expected = run.load().encode(TEXTS)
    for given in ({}, {"task.loss": "auto", "task.normalize": "none"}):
        again = finetune(out=run.folder, resume=True, **given)
        assert again.metrics["metrics"] == run.metrics["metrics"]
        np.testing.assert_array_equal(again.load().encode(TEXTS), expected)
