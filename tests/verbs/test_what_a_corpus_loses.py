"""What must not be lost, cut or mixed on the way from text to a language model and back to text."""

import json

import numpy as np
import pytest

import langue
from langue.data.corpus.builder import Building, build
from langue.data.corpus.reader import Corpus
from langue.data.corpus.split import SplitAssignment
from langue.data.corpus.stream import SpecialTokenOverhead, Stream
from langue.errors import DataError, LangueError, ModelError, RunError, SettingsError
from langue.files import exclusive_lock
from langue.generation.generate import generate
from langue.generation.sample import Sampling
from langue.settings.sections import resolve
from langue.text.read.documents import Reading, open_texts
from langue.text.tokenizers.training import train
from langue.train.journal import Journal

WORDS = [
    *("the", "dog", "sees", "a", "small", "red", "house", "and", "sleeps", "near", "a", "tree"),
    *("while", "rain", "falls", "on", "the", "old", "road"),
]
TINY = {"model.preset": "gpt2", "model.n_layers": 1, "model.dim": 16, "model.n_heads": 2,
    "data.seq_len": 16,
        "train.batch_tokens": 128, "train.max_steps": 3}  # fmt: skip


def sentences(count, seed=0):
    rng = np.random.default_rng(seed)
    return [" ".join(rng.choice(WORDS, 12)) for _ in range(count)]


@pytest.fixture(scope="module")
def tokenizer(tmp_path_factory):
    folder = tmp_path_factory.mktemp("tokenizer")
    return train(sentences(200), resolve({"tokenizer.vocab_size": 300}).tokenizer, folder)


def built(tokenizer, path, out, **options):
    reading = Reading()
    building = Building(open_texts([str(path)], reading, []), tokenizer, reading, SplitAssignment())
    build(building, out, **options)
    return Corpus.open(out, "train"), Corpus.open(out, "dev")


def write(path, documents):
    path.write_text("".join(json.dumps({"text": text}) + "\n" for text in documents))
    return path


def test_force_keeps_the_corpus_until_its_successor_is_whole(tokenizer, tmp_path):
    built(tokenizer, write(tmp_path / "good.jsonl", sentences(50)), tmp_path / "corpus")
    (tmp_path / "bad.jsonl").write_text('{"text": "fine"}\n{"text": ')
    with pytest.raises(LangueError):
        built(tokenizer, tmp_path / "bad.jsonl", tmp_path / "corpus", force=True)
    assert Corpus.open(tmp_path / "corpus", "train").n_documents > 40
    built(tokenizer, write(tmp_path / "new.jsonl", sentences(9)), tmp_path / "corpus", force=True)
    assert Corpus.open(tmp_path / "corpus", "train").n_documents == 8
    assert sorted(path.name for path in tmp_path.iterdir()) == [
        "bad.jsonl",
        "corpus",
        "good.jsonl",
        "new.jsonl",
    ]


def test_a_changed_shard_is_not_trained_on(tokenizer, tmp_path):
    built(tokenizer, write(tmp_path / "good.jsonl", sentences(50)), tmp_path / "corpus")
    shard = tmp_path / "corpus" / "train-00000.bin"
    whole = bytearray(shard.read_bytes())
    whole[100:120] = bytes(20)
    shard.write_bytes(whole)
    with pytest.raises(DataError, match="the checksum is wrong"):
        langue.pretrain(data=tmp_path / "corpus", out=tmp_path / "run", **TINY)


@pytest.mark.parametrize("peek", [1, 100, 10**9])
def test_a_long_first_document_is_for_training(tokenizer, tmp_path, monkeypatch, peek):
    from langue.data.corpus import split

    monkeypatch.setattr(split, "PEEK_BYTES", peek)
    long = " ".join(sentences(200))
    train, dev = built(
        tokenizer, write(tmp_path / "t.jsonl", [long, *sentences(30, 1)]), tmp_path / "corpus"
    )
    assert train.n_documents >= 28 and dev.n_documents >= 1
    assert train.n_bytes > 0.8 * (train.n_bytes + dev.n_bytes)


@pytest.mark.parametrize("sizes", [(200, 1), (1, 200)])
def test_of_two_documents_the_longer_one_is_for_training(tokenizer, tmp_path, sizes):
    texts = [" ".join(sentences(size, size)) for size in sizes]
    train, dev = built(tokenizer, write(tmp_path / "t.jsonl", texts), tmp_path / "corpus")
    assert (train.n_bytes, dev.n_bytes) == tuple(sorted(map(len, texts), reverse=True))


@pytest.mark.parametrize("beginning", ["# README\n", "My book ", "\n"])
def test_of_one_document_the_end_is_held_out_wherever_its_only_break_is(
    tokenizer, tmp_path, beginning
):
    path = write(tmp_path / "t.jsonl", [beginning + "abcdefghij" * 2000])
    train, dev = built(tokenizer, path, tmp_path / "corpus")
    assert 0.85 < train.n_bytes / (train.n_bytes + dev.n_bytes) < 0.95


def test_of_one_document_as_much_is_held_out_as_is_asked_for(tmp_path):
    path = write(tmp_path / "t.jsonl", [" ".join(sentences(300))])
    words = TINY | {"tokenizer.vocab_size": 300, "train.max_steps": 1}
    for share, expected in ((None, 0.1), (0.3, 0.3), (0.01, 0.01)):
        asked = {} if share is None else {"data.dev_fraction": share}
        run = langue.pretrain(data=path, out=tmp_path / f"{share}", **words, **asked).folder
        train, dev = (Corpus.open(run / "corpus", split).n_bytes for split in ("train", "dev"))
        assert abs(dev / (train + dev) - expected) < 0.005
    with pytest.raises(SettingsError, match="dev_fraction is of text that becomes a corpus"):
        langue.pretrain(
            data=run / "corpus", out=tmp_path / "again", **TINY, **{"data.dev_fraction": 0.2}
        )


def test_a_pass_that_draws_nothing_has_a_step(tokenizer):
    class One:
        lengths = np.array([5])
        n_bytes = 5
        sources = [("one", 0.1, 0, 1)]

    stream = Stream(One(), None, SpecialTokenOverhead(), block=8, budget=16, seed=0)
    assert all(len(stream.plan(epoch)) == 1 for epoch in range(20))


@pytest.mark.parametrize("objective", ["causal", "masked"])
def test_what_is_said_before_a_mixture_is_trained_on_is_what_is_drawn(tmp_path, objective):
    """Steps, and how often the text is read: its weights counted, and what wraps its pieces."""
    data = [
        f"{write(tmp_path / f'{n}.jsonl', sentences(60, n))}@{weight}"
        for n, weight in enumerate((3, 0.5))
    ]
    words = TINY | {"tokenizer.vocab_size": 300, "train.max_steps": 0, "train.evaluate_every": 1000}
    if objective == "masked":
        words |= {"model.preset": "bert-tiny", "tokenizer.vocab_size": 100}
    run = langue.pretrain(objective, data=data, out=tmp_path / "run", **words)
    log = [json.loads(line) for line in (run.folder / "log.jsonl").read_text().splitlines()]
    assert run.facts["passes"] == 1 and abs(run.facts["steps"] / log[-1]["step"] - 1) < 0.1


def test_no_prompt_cuts_another_short(tokenizer, tmp_path):
    write(tmp_path / "t.jsonl", sentences(50))
    words = TINY | {"tokenizer.vocab_size": 300}
    run = langue.pretrain(data=tmp_path / "t.jsonl", out=tmp_path / "run", **words).folder
    model = langue.load(run)
    limit = model.config.longest
    short = [5, 6]
    full = list(range(5, 5 + limit - 2))
    sampling = Sampling(max_tokens=10)
    both = generate(model.language, [short, full, short], sampling)
    assert both == [generate(model.language, [each], sampling)[0] for each in (short, full, short)]
    assert len(both[0]) == 10 and 1 <= len(both[1]) < 10
    assert isinstance(model.generate([""], max_tokens=3)[0], str)


@pytest.mark.parametrize(
    "words", [{"temperature": 1e-40}, {"temperature": float("nan")}, {"seed": 2**70}, {"seed": -1}]
)
def test_what_cannot_be_sampled_with(words):
    with pytest.raises(ModelError, match="(temperature|seed) = .* cannot be followed"):
        Sampling(**words)


def test_one_process_a_folder(tmp_path):
    with (
        exclusive_lock(tmp_path / "a"),
        exclusive_lock(tmp_path / "b"),
        pytest.raises(RunError, match="another process"),
        exclusive_lock(tmp_path / "a"),
    ):
        pass
    with exclusive_lock(tmp_path / "a"):
        pass


def test_a_log_that_was_taken_away_is_not_filled_with_nothing(tmp_path):
    with Journal(tmp_path / "log.jsonl", 10, 5, 1000) as journal:
        journal.write({"split": "train", "step": 6})
    assert json.loads((tmp_path / "log.jsonl").read_text()) == {"split": "train", "step": 6}


def test_a_run_whose_weights_are_nan_ends(tmp_path, monkeypatch):
    from langue.train import trainer

    monkeypatch.setattr(trainer, "PATIENCE", 3)
    write(tmp_path / "t.jsonl", sentences(50))
    words = TINY | {
        "train.lr": 1e30,
        "train.clip": 0.0,
        "train.on_nonfinite": "skip",
        "train.max_steps": 30,
        "train.evaluate_every": 1000,
        "tokenizer.vocab_size": 300,
    }
    with pytest.raises(RunError, match="4 steps in a row"):
        langue.pretrain(data=tmp_path / "t.jsonl", out=tmp_path / "run", **words)
    assert len(list((tmp_path / "run").glob("suspect-*"))) == 4


def test_a_second_build_takes_nothing_from_the_first(tokenizer, tmp_path):
    built(tokenizer, write(tmp_path / "t.jsonl", sentences(50)), tmp_path / "corpus")
    # as if it were under way
    (tmp_path / "corpus" / "corpus.json").rename(tmp_path / "corpus" / "building.json")
    before = sorted(path.name for path in (tmp_path / "corpus").iterdir())
    with exclusive_lock(tmp_path / "corpus"), pytest.raises(RunError, match="another process"):
        built(tokenizer, tmp_path / "t.jsonl", tmp_path / "corpus")
    assert sorted(path.name for path in (tmp_path / "corpus").iterdir()) == before


def test_what_is_replaced_outlives_an_attempt_that_was_killed(tmp_path):
    from langue.files import replace_on_success

    for name in ("x", ".x.replaced"):  # what the killed attempt made, and what it was to replace
        (tmp_path / name).mkdir()
        (tmp_path / name / "file").write_text(name)
    with pytest.raises(RuntimeError), replace_on_success(tmp_path / "x", True):
        assert list((tmp_path / "x").iterdir()) == []
        raise RuntimeError
    assert (tmp_path / "x" / "file").read_text() == ".x.replaced" and not (
        tmp_path / ".x.replaced"
    ).exists()
