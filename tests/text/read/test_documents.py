"""Running text as documents: nothing is lost or changed, memory is bounded, and what cannot be read
is named."""

import gzip
import json

import pandas
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from langue.errors import DataError
from langue.text.read import documents
from langue.text.read.documents import Reading, Tally, open_texts
from langue.text.read.source import read as read_rows


def read(*sources, **options):
    """The documents of each source, whole, and what was met."""
    reading = Reading(**options)
    tally = Tally()
    notes = []
    found = []
    for source in open_texts(sources, reading, notes):
        parts = []
        for piece in source.pieces(reading, tally):
            assert piece.first == (not parts)
            assert piece.size == len(piece.text.encode())
            parts.append(piece.text)
            if piece.last:
                found.append("".join(parts))
                parts = []
        assert not parts
    return found, tally, notes


def test_a_text_file_is_one_document_or_many(tmp_path):
    path = tmp_path / "a.txt"
    path.write_text("one\ntwo \n\n\n \nthree\r\nfour", "utf-8", newline="")
    assert read(path)[0] == ["one\ntwo \n\n\n \nthree\r\nfour"]
    assert read(path, document="line")[0] == ["one", "two ", "three", "four"]
    assert read(path, document="blank")[0] == ["one\ntwo \n", "three\r\nfour\n"]
    _, tally, _ = read(path, document="line")
    assert tally.empty == 3


def test_formats_and_compression(tmp_path):
    rows = [{"text": 'a,\n"b"', "n": 1}, {"text": "北京", "n": 2}]
    lines = "".join(json.dumps(row) + "\n" for row in rows)
    (tmp_path / "a.jsonl").write_text(lines)
    with gzip.open(tmp_path / "b.jsonl.gz", "wt") as file:
        file.write(lines)
    (tmp_path / "c.json").write_text(json.dumps(rows))
    (tmp_path / "d.csv").write_text('text,n\n"a,\n""b""",1\n北京,2\n', "utf-8")
    import pyarrow as pa
    import pyarrow.parquet as pq

    pq.write_table(pa.Table.from_pylist(rows), tmp_path / "e.parquet")
    for path in sorted(tmp_path.iterdir()):
        found, tally, _ = read(path)
        assert found == ['a,\n"b"', "北京"], path
        assert tally.read() == path.stat().st_size
    assert read(tmp_path)[0] == ['a,\n"b"', "北京"] * 5
    assert read(["a", {"text": "b"}])[0] == ["a", "b"]


@settings(max_examples=60, deadline=None)
@given(
    text=st.text(st.sampled_from("ab \n\r\t北é😀"), max_size=400),
    document=st.sampled_from(["file", "line", "blank"]),
    block=st.integers(5, 40),
    piece=st.integers(8, 60),
)
def test_pieces_are_the_text(tmp_path_factory, text, document, block, piece):
    path = tmp_path_factory.getbasetemp() / "hostile.txt"
    path.write_bytes(text.encode())
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("langue.text.read.lines.BLOCK", block)
        patch.setattr(documents, "PIECE_CHARACTERS", piece)
        found, _, _ = read(path, document=document)
        longest = max(
            (len(p.text) for p in open_texts([path], Reading(), [])[0].pieces(Reading(), Tally())),
            default=0,
        )
    lines = [line.rstrip("\r") for line in text.split("\n")]
    if document == "file":
        assert found == ([text] if text.strip() else [])
        assert longest <= piece + piece // 8
    elif document == "line":
        assert found == [line for line in lines if line.strip()]
    else:
        assert "".join(found).split() == text.split()


def test_a_piece_is_cut_before_the_white_space_that_a_word_follows(tmp_path, monkeypatch):
    monkeypatch.setattr(documents, "PIECE_CHARACTERS", 32)
    path = tmp_path / "a.txt"
    path.write_text("word  another\n\n" * 20)
    pieces = [
        piece.text for piece in open_texts([path], Reading(), [])[0].pieces(Reading(), Tally())
    ]
    assert len(pieces) > 5
    assert all(piece[0].isspace() and not piece[1].isspace() for piece in pieces[1:])


def test_bytes_that_are_not_utf8_are_named_or_dropped(tmp_path):
    path = tmp_path / "a.txt"
    path.write_bytes("fine\nbad \xe9t\xe9\nalso fine\nbad again\xff\n".encode("latin-1"))
    for document in ("file", "line", "blank"):
        with pytest.raises(
            DataError,
            match="a.txt, line 2: byte 5 of the line is not UTF-8; .* windows-1252 [(]",
        ):
            read(path, document=document)
    found, tally, _ = read(path, invalid="drop")
    assert found == ["fine\nalso fine\n"]
    assert tally.invalid == 2 and "line 2" in tally.first_invalid
    assert read(path, document="line", invalid="drop")[0] == ["fine", "also fine"]
    path.write_bytes(b"cut in a character \xe5\x8c")
    with pytest.raises(DataError, match="line 1"):
        read(path)


@pytest.mark.parametrize(
    ("line", "said"),
    [
        ('{"text": 3}', "line 2: the text is a int"),
        ('{"text": "x"', "line 2: not JSON"),
        ('{"other": "x"}', "line 2: there is no column 'text'"),
        ('{"text": "\\ud800"}', "line 2: the text holds half a surrogate pair"),
        ("[" * 100_000, "line 2: not usable JSON"),
        ("[1]", "line 2: the text is a list"),
    ],
)
def test_a_row_that_cannot_be_used_is_named_or_dropped(tmp_path, line, said):
    path = tmp_path / "a.jsonl"
    path.write_text(
        f'{{"text": "first"}}\n{line}\n\n{{"text": "last"}}\n{{"text": null}}\n{{"text": ""}}\n'
    )
    with pytest.raises(DataError, match=said) as caught:
        read(path)
    assert "\n" not in str(caught.value)
    found, tally, _ = read(path, invalid="drop")
    assert found == ["first", "last"] and (tally.invalid, tally.empty) == (1, 2)


def test_another_column(tmp_path):
    path = tmp_path / "a.jsonl"
    path.write_text('{"review": "good"}\n')
    with pytest.raises(DataError, match="say which it is with --columns text=review"):
        read(path, invalid="drop")
    assert read(path, columns={"text": "review"})[0] == ["good"]


@pytest.mark.parametrize(
    ("word", "weight"), [("", 1.0), ("@2", 2.0), ("@0.5", 0.5), ("@1e2", 100.0)]
)
def test_weights(tmp_path, word, weight):
    (tmp_path / "a@b.txt").write_text("x")
    (found,) = open_texts([f"{tmp_path}/a@b.txt{word}"], Reading(), [])
    assert (found.weight, found.name) == (weight, f"{tmp_path}/a@b.txt")


@pytest.mark.parametrize("word", ["@0", "@-1", "@nan", "@inf", "@1e9"])
def test_weights_that_mean_nothing(tmp_path, word):
    (tmp_path / "a.txt").write_text("x")
    with pytest.raises(DataError, match="cannot be used"):
        open_texts([f"{tmp_path}/a.txt{word}"], Reading(), [])


def test_what_a_folder_holds(tmp_path):
    for name in ("b.txt", "a.txt", ".hidden.txt", "notes.pdf", "sub/c.txt"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text(name)
    (tmp_path / "corpus").mkdir()
    (tmp_path / "corpus" / "corpus.json").write_text("{}")
    found, _, notes = read(tmp_path)
    assert found == ["a.txt", "b.txt", "sub/c.txt"]
    assert notes == [
        f"{tmp_path}: not read: corpus (a model or a corpus, as its corpus.json says)",
        f"{tmp_path}: 1 files of other kinds are not read",
    ]
    with pytest.raises(DataError, match="a corpus that was made cannot be mixed"):
        read(tmp_path / "corpus")
    (tmp_path / "corpus" / "corpus.json").unlink()
    with pytest.raises(DataError, match="no file of text in the folder"):
        read(tmp_path / "corpus")


def test_sources_that_are_none(tmp_path):
    with pytest.raises(DataError, match="there is no such file or folder"):
        read(tmp_path / "missing.txt")
    (tmp_path / "a.pdf").write_text("x")
    with pytest.raises(DataError, match="not a format that is read"):
        read(tmp_path / "a.pdf")
    (tmp_path / "a.txt").write_text("x")
    with pytest.raises(DataError, match="named twice"):
        read(tmp_path / "a.txt", tmp_path / "a.txt")
    with pytest.raises(DataError, match="no source"):
        read()


@pytest.mark.parametrize(
    ("source", "said"),
    [
        ((text for text in ["a"]), "text of type generator cannot be read; give a path, or a list"),
        ({"train": (text for text in ["a"])}, "text of type generator cannot be read"),
        ({"train": "a.txt"}, "text of type str cannot be read"),
        ({"text": ["a"]}, "there is no split 'train'; there are: text"),
        (b"text", "text of type bytes cannot be read"),
        (3, "text of type int cannot be read"),
        ([("a text", "pos")], "rows 1, row 1: the text is a tuple"),
        ([("a", "b", "c")], "rows 1, row 1: the text is a tuple"),
        ("a text, not its name " * 20, "there is no such file or folder"),
        ("~nouser/x", "~nouser/x: whose home ~ is, is not known"),
    ],
)
def test_what_is_given_for_running_text_and_is_none(source, said):
    with pytest.raises(DataError, match=said) as caught:
        read(source)
    assert caught.value.do and "\n" not in str(caught.value)


def test_of_a_mapping_of_splits_the_training_rows_are_read():
    splits = {"train": ["a", {"text": "b"}], "validation": ["c"], "test": ["d"]}
    assert read(splits)[0] == ["a", "b"]
    assert read(splits, only="test")[0] == ["d"] and read(splits, only="dev")[0] == ["c"]


def test_a_folder_that_may_not_be_read_is_named(tmp_path, monkeypatch):
    def refuse(*_):
        raise PermissionError(13, "Permission denied")

    (tmp_path / "a.txt").write_text("x")
    monkeypatch.setattr("pathlib.Path.is_file", refuse)
    with pytest.raises(
        DataError, match=f"{tmp_path}: cannot be read: Permission denied; check its permissions"
    ):
        read(tmp_path)


def test_the_hub_is_streamed_and_its_failures_are_one_line(monkeypatch):
    def rows():
        yield {"text": "first"}
        raise ConnectionError("the line\nis dead")

    asked = {}

    def load(name, **options):
        asked.update(name=name, **options)
        return {"train": rows()}

    monkeypatch.setattr(documents, "load_hub", load)
    with pytest.raises(
        DataError, match="owner/books:small: the Hub's data set stopped: the line; run it again"
    ):
        read("owner/books:small@2")
    assert asked == {"name": "owner/books:small", "streaming": True}


@pytest.mark.parametrize("kind", ["bpe", "wordpiece", "unigram", "bytes"])
def test_pieces_are_cut_where_tokens_are(tmp_path, monkeypatch, kind):
    from langue.settings.sections import resolve
    from langue.text.tokenizers.training import train

    text = (
        "The cat sat on the mat.\n\n  Then it slept, and the other cats, too;\tall day  long.\r\n"
        * 30
    )
    tokenizer = train(
        [text],
        resolve({"tokenizer.kind": kind, "tokenizer.vocab_size": 320}).tokenizer,
        tmp_path / kind,
    )
    (tmp_path / "a.txt").write_bytes(text.encode())
    monkeypatch.setattr(documents, "PIECE_CHARACTERS", 50)
    pieces = [
        piece.text
        for piece in open_texts([tmp_path / "a.txt"], Reading(), [])[0].pieces(Reading(), Tally())
    ]
    found = tokenizer.backend.encode_batch(pieces, add_special_tokens=False)
    assert len(pieces) > 30
    assert [index for each in found for index in each.ids] == tokenizer.backend.encode(
        text, add_special_tokens=False
    ).ids


@pytest.mark.parametrize("block", [1 << 20, 8])
def test_a_bad_byte_of_a_line_longer_than_a_block_has_its_column(tmp_path, monkeypatch, block):
    monkeypatch.setattr("langue.text.read.lines.BLOCK", block)
    path = tmp_path / "a.txt"
    # the bytes of a byte order mark are text where no file begins
    path.write_bytes(b"12345678" * 2 + "\ufeff\nb".encode() + b"23456789" * 5 + b"\xff\n")
    with pytest.raises(DataError, match="line 2: byte 42 of the line is not UTF-8"):
        read_rows(path, need=("text",))
    tally = Tally()
    (texts,) = open_texts([path], Reading(invalid="drop"), [])
    pieces = list(texts.pieces(Reading(invalid="drop"), tally))
    assert pieces[0].text.startswith("1234567812345678\ufeff\n") and tally.invalid == 1
    assert "line 2: byte 42" in tally.first_invalid


@pytest.mark.parametrize("kind", [".jsonl", ".csv", ".parquet"])
def test_rows_of_one_document_are_its_lines(tmp_path, kind):
    frame = pandas.DataFrame({"line": list("abcde"), "id": [1, 1, 2, 1, 1], "more": 0})
    path = tmp_path / f"a{kind}"
    {
        ".jsonl": lambda: frame.to_json(path, orient="records", lines=True),
        ".csv": lambda: frame.to_csv(path, index=False),
        ".parquet": lambda: frame.to_parquet(path),
    }[kind]()
    for data in (path, frame):
        assert read(data, columns={"text": "line"})[0] == list("abcde")
        together = {"text": "line", "document": "id"}
        assert read(data, columns=together)[0] == ["a\nb", "c", "d\ne"]
    with pytest.raises(DataError, match="no column 'ids'"):
        read(path, columns={"text": "line", "document": "ids"})


def test_what_training_made_is_no_text(tmp_path):
    for name in ("a.txt", "val-kilmer.txt", "test-of-time.txt", "sub/b.txt", "sub/run/c.txt"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(name)
    for name in ("sub/run/checkpoints/d.txt", ".git/e.txt", "__pycache__/f.txt"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(name)
    (tmp_path / "sub/run/langue.json").write_text("{}")
    (tmp_path / "sub/run/log.jsonl").write_text('{"loss": 1}')
    (tmp_path / "loop").symlink_to(tmp_path)
    notes = []
    (found,) = open_texts([str(tmp_path)], Reading(), notes)
    assert [path.name for path in found.files["train"]] == ["a.txt", "b.txt"]
    assert notes[0].endswith(
        "not read: .git (hidden), __pycache__ (no data), loop (a link), sub/run (a run)"
    )
    assert "test-of-time.txt left out as test" in notes[1]
    assert "val-kilmer.txt held out as dev" in notes[2] and "name the files themselves" in notes[2]
    (named,) = open_texts([str(tmp_path / "val-kilmer.txt")], Reading(), notes)
    assert [path.name for path in named.files["train"]] == ["val-kilmer.txt"]
    with pytest.raises(DataError, match="it is a run"):
        open_texts([str(tmp_path / "sub/run")], Reading(), notes)
