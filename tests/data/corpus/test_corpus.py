"""A corpus folder: its tokens are those of its texts, whatever the shards; what is damaged is
refused by name."""

import contextlib
import errno
import json
import os
import resource
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from langue.data.corpus import builder
from langue.data.corpus.builder import Building, build
from langue.data.corpus.reader import Corpus, is_corpus
from langue.data.corpus.split import SplitAssignment
from langue.errors import DataError, RunError
from langue.text.quality.hash_set import Uint64Set
from langue.text.read.documents import Reading, open_texts
from tests.data.corpus.child_shards import run
from tests.tiny_tokenizer import byte_tokenizer


def make(out: Path, sources, reading=None, division=None, shard_tokens=200, **options):
    reading = reading or Reading()
    notes = options.setdefault("notes", [])
    texts = open_texts(sources, reading, notes)
    return build(
        Building(texts, byte_tokenizer(), reading, division or SplitAssignment(), shard_tokens),
        out,
        **options,
    )


def every_text(out: Path, split: str) -> list[str]:
    corpus = Corpus.open(out, split)
    return [corpus.text(document) for document in range(corpus.n_documents)]


WORDS = [
    "the",
    "other",
    "thing,",
    "a",
    "naïve",
    "北京",
    "day\n\n",
    "",
    "and",
    "<|endoftext|>",
    "then",
]


def texts(count: int, seed: int = 0) -> list[str]:
    random = np.random.default_rng(seed)
    return [
        f"{index}: " + " ".join(random.choice(WORDS, random.integers(1, 30)))
        for index in range(count)
    ]


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    out = tmp_path_factory.mktemp("corpus") / "out"
    make(out, [texts(80)], division=SplitAssignment(fraction=0.1))
    return out


def test_every_text_comes_back_once_in_order(made):
    train = every_text(made, "train")
    dev = every_text(made, "dev")
    assert len(dev) >= 1 and sorted(train + dev) == sorted(texts(80))
    assert train == [text for text in texts(80) if text in set(train)]
    corpus = Corpus.open(made)
    assert len(corpus.shards) > 3
    assert corpus.n_tokens == corpus.lengths.sum() == sum(shard.tokens for shard in corpus.shards)
    assert corpus.n_bytes == sum(len(text.encode()) for text in train)
    assert corpus.n_characters == sum(map(len, train))
    assert corpus.sources == [("rows 1", 1.0, 0, len(train))]


def test_the_name_of_a_special_token_in_a_text_is_characters(made):
    corpus = Corpus.open(made)
    everything = corpus.tokens(
        np.arange(corpus.n_documents), np.zeros(corpus.n_documents, int), corpus.lengths
    )
    assert any("<|endoftext|>" in text for text in every_text(made, "train"))
    assert corpus.tokenizer.backend.token_to_id("<|endoftext|>") not in everything


@settings(max_examples=40, deadline=None)
@given(
    st.lists(
        st.tuples(st.integers(0, 10**6), st.integers(0, 10**6), st.integers(0, 10**6)), max_size=20
    )
)
def test_slices_are_what_the_documents_hold(made, asked):
    corpus = Corpus.open(made)
    document = np.array([d % corpus.n_documents for d, _, _ in asked], np.int64)
    begin = np.array(
        [b % (n + 1) for (_, b, _), n in zip(asked, corpus.lengths[document], strict=True)],
        np.int64,
    )
    left = corpus.lengths[document] - begin
    length = np.array([c % (n + 1) for (_, _, c), n in zip(asked, left, strict=True)], np.int64)
    files_in_order = [np.fromfile(made / f"{shard.file}.bin", "<u2") for shard in corpus.shards]
    flat = np.concatenate(files_in_order)
    starts = np.concatenate([[0], np.cumsum(corpus.lengths)])
    expected = [
        flat[starts[d] + b : starts[d] + b + n]
        for d, b, n in zip(document, begin, length, strict=True)
    ]
    out = corpus.tokens(document, begin, length)
    assert out.dtype == np.int32
    assert out.tolist() == np.concatenate([np.zeros(0, np.int32), *expected]).tolist()


@pytest.mark.parametrize(
    ("document", "begin", "length"), [(-1, 0, 1), (10**6, 0, 1), (0, -1, 1), (0, 0, 10**6)]
)
def test_what_is_beyond_is_refused(made, document, begin, length):
    with pytest.raises(IndexError):
        Corpus.open(made).tokens(np.array([document]), np.array([begin]), np.array([length]))


def content(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir()}


@pytest.fixture(scope="module")
def lines(tmp_path_factory):
    path = tmp_path_factory.mktemp("lines") / "text.txt"
    random = np.random.default_rng(1)
    rows = [
        f"{n} " + " ".join(random.choice(["the", "other", "north", "naïve"], 40))
        for n in range(4000)
    ]
    path.write_text("\n".join([*rows, *rows[:50]]), "utf-8")
    return path


@pytest.fixture(scope="module")
def whole(lines):
    run(lines, lines.parent / "whole")
    return content(lines.parent / "whole")


@pytest.mark.parametrize("at", [20, 21, 22])
def test_killed_and_run_again_it_is_the_same_bytes(lines, whole, tmp_path, at):
    """Killed where a shard's tokens, its index or the record of it is about to appear, or the next
    one's."""
    cut = tmp_path / "cut"
    command = [
        sys.executable,
        "-m",
        "tests.data.corpus.child_shards",
        str(lines),
        str(cut),
        str(at),
    ]
    done = subprocess.run(command, timeout=60, cwd=Path(__file__).parents[3])
    assert done.returncode == -signal.SIGKILL
    kept = [
        shard["file"]
        for shard in json.loads((cut / "building.json").read_text())["shards"]["train"]
    ]
    finished = {path: path.stat().st_mtime_ns for path in (cut / f"{name}.bin" for name in kept)}
    assert len(finished) > 3 and not (cut / "corpus.json").exists()
    with pytest.raises(DataError, match="not finished"):
        Corpus.open(cut)
    run(lines, cut)
    assert content(cut) == whole
    assert {path: path.stat().st_mtime_ns for path in finished} == finished
    Corpus.open(cut).verify()


def test_what_another_build_left_is_begun_anew(tmp_path):
    rows = texts(60)
    with limited(90_000), pytest.raises(RunError):
        make(tmp_path / "out", [[*rows, "word " * 20_000]])
    assert len(list((tmp_path / "out").glob("train-*.bin"))) > 2
    notes: list[str] = []
    make(tmp_path / "out", [rows], notes=notes)
    assert any("built again from the start" in note for note in notes)
    make(tmp_path / "other", [rows])
    assert content(tmp_path / "out") == content(tmp_path / "other")


@contextlib.contextmanager
def limited(size: int):
    """No file may grow beyond `size` bytes, as on a full disk."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)


def test_a_full_disk_is_one_line_and_leaves_nothing_half_written(tmp_path, monkeypatch):
    rows = [*texts(60), "word " * 20_000, *texts(20, seed=1)]
    out = tmp_path / "out"
    make(tmp_path / "whole", [rows])
    with (
        limited(90_000),
        pytest.raises(RunError, match="cannot be written: .*; free space") as caught,
    ):
        make(out, [rows])
    assert "\n" not in str(caught.value) and str(out) in str(caught.value)
    left = sorted(path.name for path in out.iterdir())
    assert "corpus.json" not in left and not [name for name in left if name.startswith(".")]
    kept = json.loads((out / "building.json").read_text())["shards"]["train"]
    assert kept and {f"{shard['file']}.bin" for shard in kept} == {
        n for n in left if n[:5] + n[-4:] == "train.bin"
    }
    notes: list[str] = []
    make(out, [rows], notes=notes)
    assert content(out) == content(tmp_path / "whole")
    assert any("finished shards are kept" in note for note in notes)


def test_a_full_disk_is_told_once(tmp_path, monkeypatch):
    """Though one file is written within another's writing."""

    def full(writer):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(builder._Writer, "_write", full)
    with pytest.raises(RunError) as caught:
        make(tmp_path / "out", [texts(60)])
    assert str(caught.value).count("No space left") == str(caught.value).count("free space") == 1


def test_a_failure_before_the_first_shard_leaves_no_folder(tmp_path):
    (tmp_path / "bad.jsonl").write_text('{"text": "fine"}\n{"text": 3}\n')
    with pytest.raises(DataError, match="bad.jsonl, line 2: the text is a int"):
        make(tmp_path / "out", [tmp_path / "bad.jsonl"])
    assert not (tmp_path / "out").exists()


def test_a_damaged_finished_shard_is_made_again(tmp_path):
    rows = [*texts(60), "word " * 20_000]
    out = tmp_path / "out"
    with limited(90_000), pytest.raises(RunError):
        make(out, [rows])
    with (out / "train-00001.bin").open("r+b") as file:
        file.write(b"\xff\x00")
    notes: list[str] = []
    make(out, [rows], notes=notes)
    make(tmp_path / "whole", [rows])
    assert any("train-00001 is damaged" in note for note in notes)
    assert content(out) == content(tmp_path / "whole")


def test_what_stands_there_is_not_overwritten(tmp_path):
    out = tmp_path / "out"
    make(out, [texts(5)])
    with pytest.raises(RunError, match="finished corpus already"):
        make(out, [texts(6)])
    make(out, [texts(6)], force=True)
    assert Corpus.open(out).n_documents + Corpus.open(out, "dev").n_documents == 6
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "thesis.txt").write_text("precious")
    for force in (False, True):
        with pytest.raises(RunError, match="holds something else"):
            make(tmp_path / "mine", [texts(6)], force=force)
    assert (tmp_path / "mine" / "thesis.txt").read_text() == "precious"


def _cut(out):
    (out / "train-00000.bin").write_bytes((out / "train-00000.bin").read_bytes()[:-1])


def _edit(**changes):
    def edit(out):
        facts = json.loads((out / "corpus.json").read_text())
        (out / "corpus.json").write_text(json.dumps(facts | changes))

    return edit


def _unordered(out):
    index = np.fromfile(out / "train-00000.idx", "<u8")
    index[1] = 2**63
    index.tofile(out / "train-00000.idx")


@pytest.mark.parametrize(
    ("damage", "said"),
    [
        (_cut, "train-00000.bin: the shard is cut short"),
        (lambda out: (out / "train-00000.bin").open("ab").write(b"xx"), "too long"),
        (lambda out: (out / "train-00000.idx").unlink(), "train-00000.idx: a shard cannot be read"),
        (_unordered, "do not fit its tokens"),
        (lambda out: (out / "corpus.json").write_text("{"), "not JSON"),
        (lambda out: (out / "corpus.json").write_text("[]"), "format None"),
        (lambda out: (out / "corpus.json").unlink(), "it has no corpus.json"),
        (_edit(format=2), "format 2 is not read here, only 1"),
        (_edit(vocab_size=1000), "a vocabulary of 1,000 where the tokenizer has 258"),
        (_edit(vocab_size=70_000), "vocab_size 70000"),
        (_edit(dtype="float16"), "dtype 'float16'"),
        (lambda out: (out / "tokenizer.json").unlink(), "the tokenizer is missing"),
        (
            lambda out: (out / "tokenizer.json").open("a").write(" "),
            "not the one that the corpus was made with",
        ),
    ],
)
def test_what_is_damaged_is_refused_by_name(made, tmp_path, damage, said):
    out = tmp_path / "out"
    shutil.copytree(made, out)
    damage(out)
    with pytest.raises(DataError, match=said) as caught:
        Corpus.open(out)
    assert str(out) in str(caught.value) and "\n" not in str(caught.value)


def test_a_changed_token_fails_its_checksum_and_one_beyond_the_vocabulary_is_refused(
    made, tmp_path
):
    out = tmp_path / "out"
    shutil.copytree(made, out)
    with (out / "train-00001.bin").open("r+b") as file:
        file.write(b"\xff\xff")
    corpus = Corpus.open(out)
    with pytest.raises(DataError, match="train-00001.bin: the checksum is wrong"):
        corpus.verify()
    with pytest.raises(DataError, match="beyond the vocabulary"):
        corpus.tokens(
            np.arange(corpus.n_documents), np.zeros(corpus.n_documents, int), corpus.lengths
        )
    Corpus.open(made).verify()


JSON = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats()
    | st.text(max_size=5)
    | st.just("../../etc/passwd"),
    lambda inner: (
        st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3)
    ),
    max_leaves=5,
)


@settings(max_examples=80, deadline=None)
@given(data=st.data())
def test_a_hostile_corpus_json_is_refused_in_one_line(made, data):
    """Any one value in it replaced by any other."""
    original = (made / "corpus.json").read_text()
    facts = json.loads(original)
    at = facts
    path = []
    while isinstance(at, (dict, list)) and at and (not path or data.draw(st.booleans())):
        path.append(
            data.draw(st.sampled_from(sorted(at) if isinstance(at, dict) else range(len(at))))
        )
        parent = at
        at = at[path[-1]]
    parent[path[-1]] = data.draw(JSON)
    try:
        (made / "corpus.json").write_text(json.dumps(facts))
        for split in ("train", "dev"):
            with contextlib.suppress(DataError):
                corpus = Corpus.open(made, split)
                corpus.tokens(np.arange(corpus.n_documents), 0 * corpus.lengths, corpus.lengths)
    finally:
        (made / "corpus.json").write_text(original)


def test_sources_are_ranges_with_weights(tmp_path):
    for name, count in (("a", 30), ("b", 20)):
        rows = "".join(json.dumps({"text": text}) + "\n" for text in texts(count, seed=ord(name)))
        (tmp_path / f"{name}.jsonl").write_text(rows)
    make(
        tmp_path / "out",
        [f"{tmp_path}/a.jsonl", f"{tmp_path}/b.jsonl@2.5"],
        division=SplitAssignment(fraction=0.1),
    )
    for split in ("train", "dev"):
        (a, one, zero, middle), (b, more, again, last) = Corpus.open(
            tmp_path / "out", split
        ).sources
        assert (Path(a).name, Path(b).name, one, more) == ("a.jsonl", "b.jsonl", 1.0, 2.5)
        assert (
            zero == 0
            and middle == again
            and last == Corpus.open(tmp_path / "out", split).n_documents
        )
        assert 0 < middle < last


@pytest.mark.parametrize("count", [2, 3, 10, 1500])
@pytest.mark.parametrize("fraction", [1e-6, 0.01, 0.5, 0.999])
def test_both_splits_get_a_document_and_copies_stay_together(tmp_path, count, fraction):
    rows = [text for text in texts(count) for _ in range(2)]
    make(tmp_path / "out", [rows], division=SplitAssignment(fraction=fraction), shard_tokens=10**6)
    train = every_text(tmp_path / "out", "train")
    dev = every_text(tmp_path / "out", "dev")
    assert train and dev and not set(train) & set(dev)
    assert sorted(train + dev) == sorted(rows)
    if fraction == 0.5 and count == 1500:
        assert 0.45 < len(dev) / len(rows) < 0.55


def test_copies_are_counted_and_left_out_when_asked(tmp_path):
    rows = texts(20) + texts(7)
    facts = make(tmp_path / "kept", [rows])
    assert facts["duplicates"] == 7 and not facts["duplicates_dropped"]
    facts = make(tmp_path / "out", [rows], division=SplitAssignment(dedup=True))
    assert facts["duplicates"] == 7
    assert sorted(
        every_text(tmp_path / "out", "train") + every_text(tmp_path / "out", "dev")
    ) == sorted(texts(20))


@settings(max_examples=30, deadline=None)
@given(st.lists(st.integers(0, 2**64 - 1), max_size=200))
def test_seen_is_a_set(numbers):
    seen = Uint64Set()
    known = set()
    seen.table = seen.table[:4]
    for number in numbers:
        assert seen.add(number) == ((number or 1) not in known)
        known.add(number or 1)


def test_a_single_document_gives_its_end(tmp_path):
    text = "".join(f"line {n} of the text\n" for n in range(100))
    (tmp_path / "one.txt").write_text(text)
    make(tmp_path / "out", [tmp_path / "one.txt"])
    (train,) = every_text(tmp_path / "out", "train")
    (dev,) = every_text(tmp_path / "out", "dev")
    assert train + dev == text and train.endswith("\n") and 0.08 < len(dev) / len(text) < 0.12


@pytest.mark.parametrize("end", ["\n", " ", ""])
def test_a_single_document_larger_than_what_is_looked_at(tmp_path, monkeypatch, end):
    from langue.data.corpus import split
    from langue.text.read import documents

    monkeypatch.setattr(documents, "PIECE_CHARACTERS", 64)
    monkeypatch.setattr(split, "PEEK_BYTES", 200)
    text = "".join(f"{n:03d}the{end}" for n in range(300))
    (tmp_path / "one.txt").write_text(text)
    make(tmp_path / "out", [tmp_path / "one.txt"])
    (train,) = every_text(tmp_path / "out", "train")
    (dev,) = every_text(tmp_path / "out", "dev")
    assert train + dev == text and 0.05 < len(dev) / len(text) < 0.15
    (tmp_path / "two.txt").write_text("another")
    make(tmp_path / "both", [tmp_path], reading=Reading())
    assert {*every_text(tmp_path / "both", "train"), *every_text(tmp_path / "both", "dev")} == {
        text,
        "another",
    }


def test_files_named_dev_are_the_dev_split(tmp_path):
    for name in ("train", "validation", "test"):
        (tmp_path / f"{name}.txt").write_text(f"this is {name}")
    notes: list[str] = []
    make(tmp_path / "out", [tmp_path], notes=notes)
    assert every_text(tmp_path / "out", "train") == ["this is train"]
    assert every_text(tmp_path / "out", "dev") == ["this is validation"]
    assert "test.txt left out" in notes[0]


def test_a_corpus_of_nothing_is_refused(tmp_path):
    (tmp_path / "empty.txt").write_text(" \n\n")
    with pytest.raises(DataError, match="empty.txt: no document is left to train on: 1 empty"):
        make(tmp_path / "out", [tmp_path / "empty.txt"])
    assert not (tmp_path / "out").exists()
    assert os.listdir(tmp_path) == ["empty.txt"]


@pytest.mark.parametrize("seed", range(8))
def test_copies_stay_together_across_sources(tmp_path, seed):
    """Also where a source has so few documents that one is made dev whatever its number is."""
    rows = texts(9)
    make(
        tmp_path / "out",
        [rows[:4], rows[2:7], rows[5:] + rows[:1]],
        division=SplitAssignment(seed=seed),
    )
    train = every_text(tmp_path / "out", "train")
    dev = every_text(tmp_path / "out", "dev")
    assert train and dev and not set(train) & set(dev)
    assert len(train + dev) == 14


def test_what_is_too_long_for_a_name_is_no_corpus():
    assert not is_corpus(Path("a text of many words " * 40))
