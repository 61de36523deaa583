"""Next-sentence and order prediction beside masked LM: what is drawn, what it costs, and where the
head is saved."""

import json
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from torch.nn import functional as F

import langue
from langue.data.corpus.stream import Chunks
from langue.errors import SettingsError
from langue.hub.checkpoint import describe, load_into, read_checkpoint, without_extra
from langue.model.config import ModelConfig
from langue.model.language_model import LanguageModel
from langue.model.transformer import initialise
from langue.settings.sections import TrainSettings
from langue.tasks.language import HeldOutSet
from langue.tasks.masked import Masked
from langue.tasks.pairs import DOES_NOT, NOT_ASKED
from langue.train.parallel import Parallel
from langue.train.trainer import Trainer
from tests.memory import Memory
from tests.tasks.test_language import CPU, tokenizer

LENGTHS = [12, 30, 1, 30, 7, 2, 19] * 12


def made(kind, lengths=LENGTHS, **settings):
    """Every token of the text is another number, so that where it came from can be told."""
    objective = Masked(
        tokenizer("masked"), Masked.Options(pairs=kind, mask_ratio=0.2, **settings), seed=3
    )
    objective.vocabulary = 0  # tokens drawn at random are then all 0
    ends = np.cumsum(lengths)
    return objective, Memory(
        [np.arange(end - n, end) + 1000 for end, n in zip(ends, lengths, strict=True)]
    )


def read(objective, data, rows=None):
    """(tokens as they stood before masking, segments, label, document) of each piece, and the
    batch."""
    rows = np.arange(len(data.lengths)) if rows is None else np.asarray(rows)
    batch = objective.make(data, Chunks(rows, np.zeros(len(rows), int), data.lengths[rows], 0), CPU)
    tokens = batch.tokens.clone()
    tokens[batch.places] = batch.labels
    pieces = []
    for n, row in enumerate(batch.rows):
        a, b = batch.starts[n : n + 2].tolist()
        pieces.append(
            (
                tokens[a:b].tolist(),
                batch.segments[a:b].tolist(),
                int(batch.targets[n]),
                int(rows[row]),
            )
        )
    return pieces, batch


@pytest.mark.parametrize("kind", ["next", "order"])
def test_half_of_the_second_parts_do_not_follow(kind):
    objective, data = made(kind)
    pieces, _ = read(objective, data)
    told = []
    for tokens, segments, label, document in pieces:
        text = data.documents[document].tolist()
        first = tokens.index(objective.sep)
        assert (
            tokens[0] == objective.cls
            and tokens[-1] == objective.sep
            and tokens.count(objective.sep) == 2
        )
        assert (
            segments == [0] * (first + 1) + [1] * (len(tokens) - first - 1)
            and len(tokens) == len(text) + 3
        )
        one = tokens[1:first]
        two = tokens[first + 1 : -1]
        if label == NOT_ASKED:
            assert len(text) == 1 and one == text
            continue
        told.append(label)
        if label != DOES_NOT:
            assert one + two == text and one and two
        elif kind == "order":
            assert two + one == text and one and two
        else:
            assert one == text[: len(one)]
            (home,) = {n for n, d in enumerate(data.documents) if set(two) <= set(d.tolist())}
            assert home != document and np.all(np.diff(two) == 1)
            # as the text's own would
            assert two[0] != data.documents[home][0] and two[-1] == data.documents[home][-1]
    assert 0.35 < np.mean(told) < 0.65


def test_of_a_lone_document_nothing_is_asked(tmp_path):
    """As its parts follow each other whatever is drawn."""
    objective, data = made("next", [40, 3])
    rows = [0] * 20
    assert {label for *_, label, _ in read(objective, data, rows)[0]} == {NOT_ASKED}
    (tmp_path / "one.txt").write_text("a b c d e f g h " * 40)
    words = {
        "model.preset": "bert-tiny",
        "tokenizer.vocab_size": 20,
        "data.seq_len": 16,
        "train.max_steps": 1,
    }
    with pytest.raises(SettingsError, match="the text is a single one"):
        langue.pretrain(
            "masked",
            data=tmp_path / "one.txt",
            out=tmp_path / "no",
            **words,
            **{"task.pairs": "next"},
        )
    assert not (tmp_path / "no").exists()  # so that the same command mended is not refused
    (tmp_path / "rows.jsonl").write_text(
        "".join(f'{{"text": "{"a b " * n}"}}\n' for n in range(1, 20))
    )
    for kind, data in (("order", "one.txt"), ("next", "rows.jsonl")):
        run = langue.pretrain(
            "masked", data=tmp_path / data, out=tmp_path / kind, **words, **{"task.pairs": kind}
        )
        # one document is held out
        assert ("pair_accuracy" in run.metrics["metrics"]) == (kind == "order")


def test_what_is_put_in_ends_a_document_where_what_it_replaces_did():
    objective, data = made("next", [60] * 50)
    homes = np.zeros(50, int)
    said = []
    for epoch in range(20):
        rows = np.repeat(np.arange(50), 3)
        begin = np.tile([0, 20, 40], 50)
        slices = Chunks(rows, begin, np.full(150, 20), epoch)
        parts = objective.pairs.parts(data, data.tokens(rows, begin, slices.length), slices)
        for n in np.flatnonzero(parts.label == DOES_NOT):
            documents, places = np.divmod(
                parts.text[20 * n + parts.cut[n] : 20 * n + 20] - 1000, 60
            )
            assert len(set(documents)) == 1 and documents[0] != rows[n]
            assert places[0] > 0 and (places[-1] == 59) == (begin[n] == 40)
            homes[documents[0]] += 1
        said.append(parts.label.mean())
    assert (
        abs(np.mean(said) - 0.5) < 0.03
        and homes.min() > 0.4 * homes.mean()
        and homes.max() < 1.8 * homes.mean()
    )


def test_whole_words_do_not_go_over_a_cut():
    objective, data = made("order", whole_words=True)
    objective.words = SimpleNamespace(
        begin=lambda text, starts: np.isin(np.arange(len(text)), starts)
    )  # each part is one
    pieces, batch = read(objective, data)
    hidden = torch.zeros(batch.n_tokens, dtype=torch.bool)
    hidden[batch.places] = True
    for (_, segments, *_), part in zip(
        pieces, hidden.split(batch.starts.diff().tolist()), strict=True
    ):
        first = segments.index(1)
        for word in (part[1 : first - 1], part[first:-1]):
            assert word.all() or not word.any()
    assert 0.05 < hidden.float().mean() < 0.5


def model_of(tok, **axes):
    sizes = {
        "dim": 32,
        "n_layers": 2,
        "n_heads": 4,
        "ffn_dim": 48,
        "max_length": 128,
        "dropout": 0.0,
    }
    config = ModelConfig(
        vocab_size=len(tok), n_segments=2, pair_head=True, head_transform=True, **sizes, **axes
    )
    model = LanguageModel(config)
    initialise(model, 0.2, 0)
    return model.eval()


def small(kind):
    tok = tokenizer("masked")
    random = np.random.default_rng(0)
    data = Memory([random.integers(5, len(tok), n) for n in LENGTHS])
    return Masked(tok, Masked.Options(pairs=kind, mask_ratio=0.2), seed=3), data, model_of(tok)


@torch.no_grad()
def test_the_loss_is_a_sum_over_pieces_and_judged_as_one_at_a_time():
    objective, data, model = small("order")
    rows = np.arange(len(LENGTHS))
    whole = objective.make(data, Chunks(rows, 0 * rows, data.lengths, 0), CPU)
    outcome = objective.forward(model, whole)
    total = 0.0
    count = 0
    right = 0
    asked = 0
    for row in rows:
        batch = objective.make(
            data, Chunks(*(np.asarray([x]) for x in (row, 0, data.lengths[row])), 0), CPU
        )
        states = model.body(*batch.inputs)
        if len(batch.labels):
            total += float(
                F.cross_entropy(model.logits(states[batch.places]), batch.labels, reduction="sum")
            )
            count += len(batch.labels)
        if int(batch.targets[0]) != NOT_ASKED:
            logits = model.head.next_sentence_logits(states[:1])
            total += float(F.cross_entropy(logits, batch.targets)) * 0.2 * (batch.n_tokens - 3)
            right = right + int(logits.argmax() == batch.targets[0])
            asked = asked + 1
    assert outcome.count == count and float(outcome.loss) == pytest.approx(total, rel=1e-5)
    held = HeldOutSet(objective.stream(data, block=64, budget=200, seed=0))
    metrics, loss = objective.evaluate(model, held, device=CPU, dtype=torch.float32)
    assert (
        metrics["pair_accuracy"] == pytest.approx(right / asked)
        and loss < float(outcome.loss) / count
    )


def step_of(folder, kind, parts, several=False):
    """What one training step logs, its batches being of these documents. several: by the way that
    several processes go."""
    objective, data, model = small(kind)
    stream = objective.stream(data, block=64, budget=128, seed=0)
    folder.mkdir(exist_ok=True)
    settings = TrainSettings(accumulate=len(parts), lr=1e-3, warmup=0, precision="fp32", eps=1e-3)
    run = Trainer(model, objective, stream, None, settings, folder)
    if several:
        run.parallel = Parallel(model, objective, settings, run.device)
    return run._step(
        [objective.make(data, Chunks(rows, 0 * rows, data.lengths[rows], 0), CPU) for rows in parts]
    )


ROWS = np.asarray([0, 1, 3, 4, 5, 6, 7, 8])


def test_what_is_logged_is_of_all_processes(tmp_path, monkeypatch):
    whole = step_of(tmp_path, "order", [ROWS])
    assert np.log(whole["perplexity"]) < whole["loss"] - 0.1  # which is of the tokens alone
    sent = []
    found = "langue.train.parallel.Parallel.sums"
    monkeypatch.setattr(found, lambda _, *values: sent.append(values) or list(values))
    step_of(tmp_path, "order", [ROWS[:3]], several=True)
    monkeypatch.setattr(found, lambda _, *values: np.add(values, sent[0]).tolist())
    one = step_of(tmp_path, "order", [ROWS[3:]], several=True)
    for value in ("loss", "perplexity"):
        assert one[value] == pytest.approx(whole[value], rel=1e-6)


def test_it_is_learned_saved_and_read_by_transformers(tmp_path):
    transformers = pytest.importorskip("transformers")
    words = [chr(97 + n) for n in range(26)]
    random = np.random.default_rng(0)
    rows = []
    for _ in range(400):  # sentences that go up the alphabet: their order can be seen
        begin = int(random.integers(0, 10))
        rows.append(" ".join(words[begin : begin + int(random.integers(8, 16))]))
    (tmp_path / "text.jsonl").write_text(
        "\n".join(json.dumps({"text": row}) for row in rows), "utf-8"
    )
    common = {
        "data": tmp_path / "text.jsonl",
        "model.preset": "bert-tiny",
        "model.n_layers": 1,
        "model.dim": 32,
    }
    common |= {
        "model.n_heads": 2,
        "model.ffn_dim": 64,
        "model.dropout": 0.0,
        "model.attention_dropout": 0.0,
    }
    common |= {
        "data.seq_len": 32,
        "train.batch_tokens": 1024,
        "train.max_steps": 200,
        "train.lr": 3e-3,
    }
    common |= {"data.dev_fraction": 0.2, "train.evaluate_every": 100}
    run = langue.pretrain(
        "masked",
        out=tmp_path / "run",
        **common,
        **{"task.pairs": "order", "tokenizer.vocab_size": 40},
    )
    low, high = run.metrics["intervals"]["pair_accuracy"]
    assert 0.5 < low <= run.metrics["metrics"]["pair_accuracy"] <= high  # beyond chance
    theirs, said = transformers.BertForPreTraining.from_pretrained(
        tmp_path / "run", output_loading_info=True
    )
    assert not said["missing_keys"] and not said["unexpected_keys"]
    checkpoint = read_checkpoint(describe(tmp_path / "run"), head="lm", pairs=True)
    model = LanguageModel(checkpoint.config).eval()
    assert not load_into(model, without_extra(checkpoint.weights), where="the run")
    ids = torch.tensor([2, *range(10, 20), 3, *range(15, 20), 3])
    segments = torch.tensor([0] * 12 + [1] * 6)
    with torch.no_grad():
        out = theirs.eval()(ids[None], token_type_ids=segments[None])
        states = model.body(ids, torch.arange(18), [(0, 1, 18)], segments)
        torch.testing.assert_close(
            model.logits(states), out.prediction_logits[0], rtol=0, atol=1e-5
        )
        torch.testing.assert_close(
            model.head.next_sentence_logits(states[:1]),
            out.seq_relationship_logits,
            rtol=0,
            atol=1e-5,
        )
    assert len(langue.load(run.folder).logits([ids.tolist()])[0]) == 18
    further = {**common, "train.max_steps": 1, "train.lr": 1e-9, "task.pairs": "order"}
    for key in [key for key in further if key.startswith("model.")]:
        del further[key]
    again = langue.pretrain("masked", model=run.folder, out=tmp_path / "further", **further)
    accuracy = (found.metrics["metrics"]["pair_accuracy"] for found in (run, again))
    # the head is trained further, not made anew
    assert next(accuracy) == pytest.approx(next(accuracy))
    lines = [json.loads(line) for line in (run.folder / "log.jsonl").read_text().splitlines()]
    train = [line for line in lines if line["split"] == "train"]
    # which is of the tokens alone
    assert all(line["loss"] > np.log(line["perplexity"]) for line in train)
    other = {
        "data": common["data"],
        "model.preset": "modernbert",
        "model.size": "1M",
        "task.pairs": "next",
    }
    with pytest.raises(SettingsError, match="tells two parts apart"):
        langue.pretrain("masked", out=tmp_path / "no", **other)
    with pytest.raises(SettingsError, match="is of the objective masked"):
        langue.pretrain(
            "causal", out=tmp_path / "nor", **{"data": common["data"], "task.pairs": "next"}
        )
