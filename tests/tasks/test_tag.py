"""Tags and entities, against seqeval and by hand."""

import itertools
import json
import random

import numpy as np
import pytest
import torch
from safetensors import safe_open
from seqeval.metrics import f1_score, precision_score, recall_score
from seqeval.metrics.sequence_labeling import get_entities
from seqeval.scheme import IOB2 as SEQEVAL_IOB2
from seqeval.scheme import IOBES as SEQEVAL_IOBES
from seqeval.scheme import Entities

import langue
from langue.data.batch import Examples, examples_of, gather
from langue.data.encoded import Encoded
from langue.errors import DataError
from langue.model.token_heads import ChainScores, constrained, viterbi
from langue.tasks.tag import Tag, Tagged, _Scores, _Words
from langue.text.tags import (
    IO,
    IOB2,
    IOBES,
    Entity,
    Gazetteer,
    allowed_edges,
    count_entities,
    entities_of,
    find_scheme,
    normalised,
    precision_recall_f1,
    tags_of_spans,
    words_of,
)
from tests.tiny import PLAIN, tiny_bert, write_jsonl


def random_tags(generator: random.Random, prefixes: str, length: int) -> list[str]:
    tags = ["O", *(f"{prefix}-{kind}" for prefix in prefixes for kind in ("PER", "LOC"))]
    return generator.choices(tags, k=length)


@pytest.mark.parametrize("prefixes", ["I", "BI", "BIES"])
def test_entities_are_those_of_seqeval(prefixes: str) -> None:
    generator = random.Random(0)
    for _ in range(300):
        tags = random_tags(generator, prefixes, generator.randint(0, 9))
        expected = [Entity(start, end + 1, kind) for kind, start, end in get_entities(tags)]
        assert entities_of(tags) == expected, tags


@pytest.mark.parametrize(
    ("scheme", "theirs", "prefixes"), [(IOB2, SEQEVAL_IOB2, "BI"), (IOBES, SEQEVAL_IOBES, "BIES")]
)
def test_strict_entities_are_those_of_seqeval(scheme, theirs, prefixes: str) -> None:
    generator = random.Random(1)
    for _ in range(300):
        tags = random_tags(generator, prefixes, generator.randint(1, 9))
        found = Entities([tags], theirs).entities[0]
        assert scheme.read(tags) == [Entity(each.start, each.end, each.tag) for each in found], tags


def test_bilou_and_bmes_read_as_iobes() -> None:
    entities = [Entity(0, 1, "A"), Entity(1, 4, "B")]
    assert entities_of(["U-A", "B-B", "I-B", "L-B"]) == entities
    assert entities_of(["S-A", "B-B", "M-B", "E-B"]) == entities
    assert IOBES.write(entities, 4) == ["S-A", "B-B", "I-B", "E-B"]


@pytest.mark.parametrize("scheme", [IO, IOB2, IOBES])
def test_what_is_allowed_is_what_can_be_written(scheme) -> None:
    """Every sequence of 4 labels is valid by its transitions where its entities are written so."""
    labels = scheme.labels(["A", "B"])
    allowed = allowed_edges(labels, scheme)
    for sequence in itertools.product(range(len(labels)), repeat=4):
        tags = [labels[index] for index in sequence]
        assert is_valid(allowed, sequence) == (scheme.write(entities_of(tags), 4) == tags), tags


def is_valid(allowed, sequence) -> bool:
    beside = len(allowed) - 1
    return all(allowed[a, b] for a, b in itertools.pairwise([beside, *sequence, beside]))


@pytest.mark.parametrize("crf", [False, True])
@pytest.mark.parametrize("scheme", [IOB2, IOBES])
def test_the_best_valid_tags_are_chosen(scheme, crf: bool, monkeypatch) -> None:
    """Against all sequences, in texts of several lengths; how likely each tag is, too."""
    monkeypatch.setattr("langue.tasks.tag.SEARCHED", 100)  # some rows at a time
    labels = scheme.labels(["A"])
    task = Tag(labels, scheme, " ", Tag.Options(crf=crf))
    random_ = np.random.default_rng(0)
    lengths = [4, 0, 1, 3, 4, 2, 1, 0]
    starts = np.cumsum([0, *lengths])
    scores = random_.normal(size=(starts[-1], len(labels)))
    edges = torch.randn(
        len(labels) + 1, len(labels) + 1, generator=torch.Generator().manual_seed(0)
    )
    best, chances = task._best(scores, starts, edges if crf else None)
    added = edges.double().numpy() if crf else np.zeros(edges.shape)
    for begin, end in itertools.pairwise(starts):
        if begin == end:
            continue
        beside = len(labels)
        sequences = [
            each
            for each in itertools.product(range(len(labels)), repeat=int(end - begin))
            if is_valid(task.allowed, each)
        ]
        totals = np.array(
            [
                sum(scores[begin + word, label] for word, label in enumerate(each))
                + sum(added[a, b] for a, b in itertools.pairwise([beside, *each, beside]))
                for each in sequences
            ]
        )
        chosen = sequences[int(totals.argmax())]
        assert tuple(best[begin:end]) == chosen
        shares = np.exp(totals) / np.exp(totals).sum()
        for word, label in enumerate(chosen):
            expected = sum(
                share for share, each in zip(shares, sequences, strict=True) if each[word] == label
            )
            expected = expected if crf else np.exp(scores[begin + word, label])
            assert chances[begin + word] == pytest.approx(expected)


@pytest.mark.parametrize(
    ("tags", "scheme"),
    [
        (["O", "I-PER", "B-PER"], IOB2),  # IOB1: B only after an entity of its type
        (["B-PER", "I-PER", "O"], IOB2),
        (["I-PER", "O"], IO),
        (["PER", "O"], IO),
        (["NOUN", "VERB"], None),
        (["S-PER", "O"], IOBES),
        (["B-PER", "L-PER", "O"], IOBES),
    ],
)
def test_the_scheme_is_found(tags: list[str], scheme) -> None:
    assert find_scheme([tags]) == scheme


def test_schemes_are_not_mixed() -> None:
    with pytest.raises(DataError, match="row 1: the tag .PER. has no prefix of a scheme and"):
        find_scheme([["O"], ["B-PER", "PER", "O"]], lambda row: f"row {row}")


@pytest.mark.parametrize("tag", ["B_PER", "X-PER", "PER-B", "PER_I"])
def test_prefixes_of_no_scheme_are_no_types(tag: str) -> None:
    with pytest.raises(DataError, match=f"the tag '{tag}' has no prefix of a scheme"):
        find_scheme([["O", "LOC"], [tag, "O"]])
    assert find_scheme([["NN", tag]]) is None


def test_tags_of_other_schemes_are_rewritten_and_counted() -> None:
    assert normalised(["I-A", "I-A", "B-A", "O"], IOB2) == (["B-A", "I-A", "B-A", "O"], 1)
    assert normalised(["A", "A", "O"], IOB2) == (["B-A", "I-A", "O"], 1)
    assert normalised(["B-A", "I-B"], IOB2) == (["B-A", "B-B"], 1)
    assert normalised(["B-A", "I-A"], IOBES) == (["B-A", "E-A"], 1)


def test_scores_are_those_of_seqeval() -> None:
    generator = random.Random(2)
    for _ in range(20):
        true = [
            random_tags(generator, "BI", generator.randint(1, 8))
            for _ in range(generator.randint(1, 6))
        ]
        said = [random_tags(generator, "BI", len(tags)) for tags in true]
        counts = count_entities(
            [entities_of(tags) for tags in true], [entities_of(tags) for tags in said]
        )
        sides = (counts.right, counts.predicted, counts.true)
        micro = precision_recall_f1(*(side.sum() for side in sides))
        assert float(micro["precision"]) == pytest.approx(
            precision_score(true, said, zero_division=0)
        )
        assert float(micro["recall"]) == pytest.approx(recall_score(true, said, zero_division=0))
        assert float(micro["f1"]) == pytest.approx(f1_score(true, said, zero_division=0))
        strict = count_entities(
            [IOB2.read(tags) for tags in true], [IOB2.read(tags) for tags in said]
        )
        sides = (strict.right, strict.predicted, strict.true)
        f1 = precision_recall_f1(*(side.sum() for side in sides))["f1"]
        expected = f1_score(true, said, mode="strict", scheme=SEQEVAL_IOB2, zero_division=0)
        assert float(f1) == pytest.approx(expected)
        if counts.types:
            by_type = precision_recall_f1(
                *(side.sum(axis=0) for side in (counts.right, counts.predicted, counts.true))
            )
            expected = f1_score(true, said, average="macro", zero_division=0)
            assert float(by_type["f1"].mean()) == pytest.approx(expected)


def test_the_gazetteer_takes_the_longest_phrase() -> None:
    texts = [["New", "York", "Times", "said"], ["New", "York", "is", "big"]]
    entities = [[Entity(0, 3, "ORG")], [Entity(0, 2, "LOC")]]
    found = Gazetteer(texts, entities).find(["the", "New", "York", "Times", "of", "New", "York"])
    assert found == [Entity(1, 4, "ORG"), Entity(5, 7, "LOC")]


# --- the task, end to end ---

PEOPLE = ["warm", "cold", "bright", "grim"]
PLACES = ["night", "day", "scene"]


def sentences(count: int, seed: int = 0) -> list[dict]:
    """Words of the tiny vocabulary; those of two lists are entities, some of them of two words."""
    generator = random.Random(seed)
    rows = []
    for _ in range(count):
        tokens: list[str] = []
        tags: list[str] = []
        for _ in range(generator.randint(2, 8)):
            kind = generator.choice(["", "", "PER", "LOC"])
            if not kind:
                tokens.append(generator.choice(PLAIN[:8]))
                tags.append("O")
                continue
            names = PEOPLE if kind == "PER" else PLACES
            words = generator.choices(names, k=generator.randint(1, 2))
            # a word between two entities tells them apart
            tokens += [*words, generator.choice(PLAIN[:8])]
            tags += [*[f"B-{kind}", f"I-{kind}"][: len(words)], "O"]
        rows.append({"tokens": tokens, "tags": tags})
    return rows


@pytest.fixture(scope="module")
def tagger(tmp_path_factory):
    folder = tmp_path_factory.mktemp("tagger")
    model = tiny_bert(folder / "bert")
    write_jsonl(folder / "train.jsonl", sentences(120))
    write_jsonl(folder / "test.jsonl", sentences(40, 1))
    settings = {"train.epochs": 30, "train.lr": 4e-3, "train.batch_examples": 16}
    langue.finetune("tag", model=model, data=folder, out=folder / "run", **settings)
    return folder


def test_entities_are_learned_judged_and_shown(tagger) -> None:
    metrics = json.loads((tagger / "run" / "metrics.json").read_text())
    assert metrics["metrics"]["f1"] > 0.7
    assert {"precision", "recall", "f1", "f1_macro", "accuracy"} == set(metrics["metrics"])
    assert metrics["baseline"]["name"] == "gazetteer of the training entities"
    model = langue.load(tagger / "run")
    text = "the warm cold was a night"
    found = model.predict([text, ["the", "warm", "cold", "was", "a", "night"]])
    assert found[0] == found[1]
    assert [(each["entity_group"], each["word"]) for each in found[0]] == [
        ("PER", "warm cold"),
        ("LOC", "night"),
    ]
    for each in found[0]:
        assert set(each) == {"entity_group", "score", "word", "start", "end"}
        assert text[each["start"] : each["end"]] == each["word"] and 0 < each["score"] <= 1


def test_a_long_text_is_read_in_windows_without_seams(tagger) -> None:
    """Each sentence of a text far longer than the model is tagged as it is in a text that fits."""
    model = langue.load(tagger / "run")
    words = [word for row in sentences(60, 2) for word in row["tokens"]]
    assert len(words) > 4 * model.config.max_length
    (found,) = model.predict([words])
    text = " ".join(words)
    assert [text[each["start"] : each["end"]] for each in found] == [each["word"] for each in found]
    names = {word: "PER" for word in PEOPLE} | {word: "LOC" for word in PLACES}
    tagged = [each["entity_group"] for each in found for _ in each["word"].split()]
    expected = [names[word] for word in words if word in names]
    agreeing = sum(a == b for a, b in zip(tagged, expected, strict=False))
    assert len(tagged) == len(expected) and agreeing > 0.95 * len(expected)


def test_transformers_reads_the_run_with_equal_logits(tagger) -> None:
    transformers = pytest.importorskip("transformers")
    theirs = transformers.AutoModelForTokenClassification.from_pretrained(tagger / "run").eval()
    model = langue.load(tagger / "run")
    ids = model.tokenizer.encode_batch(["the warm cold was a night"])[0].ids
    with torch.no_grad():
        expected = theirs(torch.tensor([ids])).logits[0].numpy()
    batch = gather(examples_of([ids]), np.arange(1), model.device)
    with torch.no_grad():
        found = model.network(batch).numpy()
    np.testing.assert_allclose(found, expected, atol=1e-5)
    assert theirs.config.id2label[1] == "B-LOC"


@pytest.mark.parametrize(
    ("row", "message"),
    [
        ({"tokens": ["the", "film"], "tags": ["O"]}, "1 tags for 2 tokens"),
        ({"tokens": ["the"], "tags": "O"}, "the tags are a str, not a list of words"),
        ({"tokens": ["the"], "tags": [""]}, "empty or no text"),
        ({"tokens": ["the"], "tags": ["PER"]}, "31: the tag 'PER' has no prefix of a scheme and"),
        ({"tokens": ["the", " "], "tags": ["O", "O"]}, "31: word 2 is empty"),
        ({"tokens": ["the"], "tags": None}, "31: the tags are NoneType"),
        ({"tokens": [], "tags": []}, "there are no tokens"),
    ],
)
def test_odd_rows_are_one_line(tagger, tmp_path, row, message) -> None:
    data = write_jsonl(tmp_path / "train.jsonl", [*sentences(30), row])
    with pytest.raises(DataError, match=message):
        langue.preview("tag", model=tagger / "bert", data=data)


def test_parts_of_speech_have_no_scheme(tagger, tmp_path) -> None:
    rows = [
        {"tokens": row["tokens"], "tags": ["X" if tag == "O" else "NOUN" for tag in row["tags"]]}
        for row in sentences(60)
    ]
    settings = {"train.epochs": 2, "train.lr": 5e-3, "train.batch_examples": 16}
    run = langue.finetune("tag", model=tagger / "bert", data=rows, out=tmp_path / "r", **settings)
    assert set(run.metrics["metrics"]) == {"accuracy", "f1_macro"}
    (found,) = run.load().predict(["the warm film"])
    assert [set(each) for each in found] == [
        {"entity", "score", "index", "word", "start", "end"}
    ] * 3


def test_spans_of_a_text_are_tags_of_its_words(tagger, tmp_path) -> None:
    text = "Ada Lovelace met Babbage."
    spans = [
        {"start": 17, "end": 24, "label": "PER"},
        {"start": 0, "end": 12, "label": "PER"},
    ]
    assert tags_of_spans(text, spans, str) == ["B-PER", "I-PER", "O", "B-PER", "O"]
    chinese = [{"start": 0, "end": 2, "label": "LOC"}]
    assert tags_of_spans("北京很大", chinese, str) == ["B-LOC", "I-LOC", "O", "O"]
    rows = [{"text": "the warm film", "spans": [{"start": 4, "end": 8, "label": "PER"}]}] * 20
    run = langue.finetune(
        "tag", model=tagger / "bert", data=rows, out=tmp_path / "r", **{"train.epochs": 1}
    )
    assert run.metrics["baseline"]["metrics"]["f1"] == 1.0


@pytest.mark.parametrize(
    ("spans", "message"),
    [
        ([(1, 3)], "begins or ends within a word"),
        ([(0, 3), (0, 12)], "overlaps another"),
        (None, "the spans are missing"),
    ],
)
def test_spans_that_are_no_words_are_one_line(spans, message) -> None:
    if spans is None:
        with pytest.raises(DataError, match=message):
            tags_of_spans("Ada", None, str)
        return
    given = [{"start": start, "end": end, "label": "PER"} for start, end in spans]
    with pytest.raises(DataError, match=message):
        tags_of_spans("Ada Lovelace met Babbage.", given, str)


def test_texts_of_several_scripts_have_the_words_that_their_spans_have(tagger) -> None:
    """In one table: each row's words are found by its own characters."""
    rows = [
        {"text": "北京的film很好", "spans": [{"start": 0, "end": 2, "label": "LOC"}]},
        {"text": "the warm film", "spans": [{"start": 4, "end": 8, "label": "PER"}]},
    ] * 10
    found = langue.preview("tag", model=tagger / "bert", data=rows)
    task = found.task
    for table, golds in ((found.source.train, found.encoded["train"].golds),):
        for text, gold in zip(task.items(table), golds, strict=True):
            assert len(gold) == len(words_of(text))


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("Ada's U.S. e-mail", ["Ada", "'", "s", "U", ".", "S", ".", "e", "-", "mail"]),
        ("在2008年OK吗", ["在", "2008", "年", "OK", "吗"]),
        ("हिन्दी में", ["हिन्दी", "में"]),
        ("cafe\u0301s", ["cafe\u0301s"]),
        ("می\u200cخواهم", ["می\u200cخواهم"]),
        ("❤\ufe0flove", ["❤\ufe0f", "love"]),
        (" \n", []),
    ],
)
def test_words_of_a_text(text: str, words: list[str]) -> None:
    assert [text[begin:end] for begin, end in words_of(text)] == words


def test_a_word_without_a_token_of_its_own_goes_on_as_the_one_before() -> None:
    """Of three words, the second begins in the token of the first."""
    context = _Words(
        texts=["ab c"],
        spans=[[(0, 1), (1, 2), (3, 4)]],
        starts=np.array([0, 3]),
        word=[np.array([0, 2])],
        sharing=np.array([[1, 0]]),
        without=0,
    )
    examples = Examples(np.zeros(4, np.int32), np.array([0, 4]), None, np.zeros(1, np.int32))
    encoded = Encoded(examples, 1, row=np.array([0]), context=context)
    labels = IOBES.labels(["X"])  # O, B-X, I-X, E-X, S-X
    task = Tag(labels, IOBES, "", Tag.Options())
    sure = np.log([[0.1, 0.2, 0.1, 0.1, 0.5], [0.96, 0.01, 0.01, 0.01, 0.01]])
    (found,) = task.merge([_Scores(sure, None)], encoded)
    assert found.tags == ["B-X", "E-X", "O"]
    assert found.scores == pytest.approx([0.2, 0.9, 0.96])
    plain = Tag(labels, None, "", Tag.Options())
    (found,) = plain.merge([_Scores(sure, None)], encoded)
    assert found.tags == ["S-X", "S-X", "O"]


def test_files_of_texts_and_of_words_are_predicted_as_given_by_hand(tagger, tmp_path) -> None:
    model = langue.load(tagger / "run", dtype="auto")  # as `langue predict` has it
    texts = ["  the warm cold   was a night", "café  the bright film", "…"]
    by_hand = model.predict(texts)
    assert by_hand[0] and by_hand[0][0]["word"] == "warm cold"
    for text, found in zip(texts, by_hand, strict=True):
        assert [text[each["start"] : each["end"]] for each in found] == [e["word"] for e in found]
    write_jsonl(tmp_path / "a.jsonl", [{"text": text, "more": 1} for text in [*texts, ""]])
    (tmp_path / "a.txt").write_text("\n".join(texts) + "\n", "utf-8")
    words = [["the", "warm"], ["grim"], ["the", "night", "was", "cold"]]
    write_jsonl(tmp_path / "b.jsonl", [{"tokens": each} for each in words])
    for name, column, items in (
        ("a.jsonl", "text", [*texts, ""]),
        ("a.txt", "text", texts),
        ("b.jsonl", "tokens", words),
    ):
        out = tmp_path / f"{name}.out"
        langue.predict(tagger / "run", data=tmp_path / name, out=out)
        rows = [json.loads(line) for line in out.read_text("utf-8").splitlines()]
        assert [row[column] for row in rows] == items
        assert [row["prediction"] for row in rows] == model.predict(items)
        langue.predict(tagger / "run", texts=items, out=tmp_path / f"{name}.again")
        assert (tmp_path / f"{name}.again").read_text("utf-8") == out.read_text("utf-8")
    assert model.predict(["", None, [], [" "]]) == [None] * 4
    assert model.predict([["", "warm"]]) != [None]


def test_what_is_not_read_as_it_stands_is_counted(tagger) -> None:
    rows = [{"tokens": ["the", "warm"] * 60, "tags": ["O", "B-PER"] * 60}] * 3
    rows += [{"tokens": ["the", "\u200b", "cold"], "tags": ["O", "O", "B-PER"]}] * 30
    notes = langue.preview("tag", model=tagger / "bert", data=rows).source.notes
    assert any("longer than the model reads at once, and are read in" in note for note in notes)
    assert any("the tokenizer leaves nothing" in note for note in notes)


# --- with a conditional random field ---


@pytest.fixture(scope="module")
def chained(tagger):
    settings = {"train.epochs": 12, "train.lr": 4e-3, "train.batch_examples": 16, "task.crf": True}
    data = {"train": sentences(120), "dev": sentences(30, 3), "test": sentences(40, 1)}
    return langue.finetune(
        "tag", model=tagger / "bert", data=data, out=tagger / "chained", **settings
    )


def test_a_crf_is_learned_saved_and_loaded(chained, tagger) -> None:
    assert chained.metrics["metrics"]["f1"] > 0.7
    assert "head.crf" in chained.facts["transformers"]
    model = chained.load()
    with safe_open(chained.folder / "model.safetensors", "pt") as file:
        for part, weight in model.network.head.crf.named_parameters():
            assert torch.equal(file.get_tensor(f"head.crf.{part}"), weight)
    learnt = model.network.head.crf.transitions
    labels = model.task.labels
    # two entities never stand side by side in these sentences: I- after B-, seldom O
    assert learnt[labels.index("B-PER"), labels.index("B-LOC")] < -0.1
    # further than 96 steps at the rate of the model lead, which falls from 4e-3
    assert float(learnt.detach().abs().max()) > 0.3
    found = model.predict(["the warm cold was a night"])[0]
    assert all(0 < each["score"] <= 1 for each in found)


def test_transformers_reads_the_emissions_of_a_crf(chained) -> None:
    transformers = pytest.importorskip("transformers")
    theirs = transformers.AutoModelForTokenClassification.from_pretrained(chained.folder).eval()
    model = chained.load()
    text = "the warm cold was a night"
    ids = model.tokenizer.encode_batch([text])[0].ids
    with torch.no_grad():
        expected = theirs(torch.tensor([ids])).logits[0].numpy()
    np.testing.assert_allclose(model.logits([text])[0], expected, atol=1e-5)


def test_tags_of_a_crf_are_sought_over_the_whole_text(chained) -> None:
    """The edges lead over the seams of windows, where training had none."""
    model = chained.load()
    words = [word for row in sentences(30, 2) for word in row["tokens"]]
    encoded = model._encode_items([words])
    assert len(encoded.examples) > 2
    whole = encoded.examples.targets
    assert whole[0].tolist() == [True, False] and whole[-1].tolist() == [False, True]
    assert not whole[1:-1].any()
    batch = gather(encoded.examples, np.arange(len(encoded.examples)))
    with torch.no_grad():
        scores, edges = model.network(batch)
    bounds = torch.searchsorted(batch.places, batch.starts)
    joined = torch.zeros(len(words), len(model.task.labels))
    parts = scores[batch.places].split(bounds.diff().tolist())
    for row, part in zip(batch.rows, parts, strict=True):
        joined[encoded.context.word[row]] = part
    chain = ChainScores(joined, constrained(edges, torch.from_numpy(model.task.allowed)))
    best = viterbi(chain, torch.tensor([0, len(words)]))
    (found,) = model.apply(encoded)
    assert isinstance(found, Tagged)
    assert found.tags == [model.task.labels[label] for label in best]


def test_taggers_with_and_without_a_crf_are_trained_further_as_each_other(
    chained, tagger, tmp_path
) -> None:
    """The scores of tags are kept; edges are new, and have a rate of their own, or left behind."""
    rows = {"train": sentences(40), "dev": sentences(10, 3)}
    still = {"train.epochs": 1, "train.lr": 1e-9}
    for before, crf in ((chained.folder, False), (tagger / "run", True)):
        out = tmp_path / str(crf)
        langue.finetune("tag", model=before, data=rows, out=out, **still, **{"task.crf": crf})
        old, new = (langue.load(folder).network.head for folder in (before, out))
        torch.testing.assert_close(old.out.weight, new.out.weight, atol=1e-5, rtol=0)
        assert (new.crf is not None) == crf
        assert new.crf is None or 1e-3 < float(new.crf.transitions.detach().abs().max()) < 0.1
