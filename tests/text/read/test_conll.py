"""CoNLL files of every dialect give sentences with their columns, lines and documents."""

import pytest

from langue.errors import DataError
from langue.text.read.open import Columns, tables
from langue.text.read.source import read

UNIVERSAL = """\
# newdoc id = a
# sent_id = 1
# text = Du pain ! # 2
1-2\tDu\t_\t_\t_\t_\t_\t_\t_\t_
1\tDe\tde\tADP\tP\t_\t3\tcase\t_\t_
2\tle\tle\tDET\tD\tDefinite=Def\t3\tdet\t_\t_
3\tpain\tpain\tNOUN\tN\t_\t0\troot\t_\tSpaceAfter=No
# a comment within
3.1\tmangé\tmanger\tVERB\tV\t_\t_\t_\t_\t_
4\t!\t!\tPUNCT\t_\t_\t3\tpunct\t_\t_

# newdoc id = b
1\tOui\t_\tINTJ\t_\t_\t0\troot\t_\t_
"""


def tagged(tmp_path, content, name="a.conll", **columns):
    file = tmp_path / name
    file.write_bytes(content if isinstance(content, bytes) else content.encode())
    notes = []
    found, _ = tables(file, Columns(("tokens", "tags"), ("document",), columns), notes)
    return found["train"], notes


def test_a_column_is_chosen_by_number_or_name(tmp_path):
    four = "-DOCSTART- -X- O O\n\nEU NNP B-NP B-ORG\nsays VBZ B-VP O\n\nHe PRP B-NP O\n"
    table, _ = tagged(tmp_path, four)
    assert table.column("tokens") == [["EU", "says"], ["He"]]
    assert table.column("tags") == [["B-ORG", "O"], ["O"]]
    assert [table.where(i)[-6:] for i in (0, 1)] == ["line 3", "line 6"]
    by_number = {"2": [["NNP", "VBZ"], ["PRP"]], "4": [["B-ORG", "O"], ["O"]]}
    for number, tags in by_number.items():
        assert tagged(tmp_path, four, tags=number)[0].column("tags") == tags
    assert tagged(tmp_path, four, tokens="2")[0].column("tokens")[1] == ["PRP"]
    header = "# columns: ner pos Form\n"
    table, _ = tagged(tmp_path, header + "O DT the\n", tags="pos")
    assert table.rows[0] == {"tokens": ["the"], "tags": ["DT"]}
    plus = "# global.columns = ID FORM UPOS NER\n1\tEU\tPROPN\tB-ORG\n"
    assert tagged(tmp_path, plus, "a.conllup")[0].column("tags") == [["PROPN"]]
    assert tagged(tmp_path, plus, "a.conllup", tags="NER")[0].column("tags") == [["B-ORG"]]


@pytest.mark.parametrize("name", ["a.conllu", "a.conll", "a.conllu.gz"])
def test_universal_dependencies(tmp_path, name):
    import gzip

    content = UNIVERSAL.replace("\n", "\r\n").encode()
    content = gzip.compress(content) if name.endswith("gz") else content
    table, notes = tagged(tmp_path, content, name)
    assert table.column("tokens") == [["De", "le", "pain", "!"], ["Oui"]]
    assert table.column("tags") == [["ADP", "DET", "NOUN", "PUNCT"], ["INTJ"]]
    assert table.column("document") == [1, 2] and table.where(1).endswith("line 13")
    assert len(notes) == 1 and "2 lines of multiword tokens and empty nodes" in notes[0]
    for column in ("xpos", "5"):
        # a sentence of nothing but `_` has no such annotation
        tags = tagged(tmp_path, content, name, tags=column)[0].column("tags")
        assert tags == [["P", "D", "N", "_"], None]
    with pytest.raises(DataError, match="--columns tags=xpos$"):
        tagged(tmp_path, content, name, tags="XPOS")


def test_odd_lines_are_read_as_they_are_meant(tmp_path):
    content = (
        "\ufeff# id 61a3\tdomain=train\r\nNew  B-LOC\r\n\u3000 I-LOC\r\n \t\r\n\r\n"
        "-DOCSTART- O\r\n# O\r\n#tag O\r\n-DOCSTART-\r\n- O\r\n\r\n"
        "# a comment of words\r\n# b = c\r\nx O"
    )
    table, notes = tagged(tmp_path, content)
    assert table.column("tokens") == [["New", "\u3000"], ["#", "#tag"], ["-"], ["x"]]
    assert table.column("document") == [None, 1, 2, 2] and not notes
    assert [table.where(i).rpartition(" ")[2] for i in range(4)] == ["2", "7", "10", "14"]
    table, _ = tagged(tmp_path, "New York\tB-LOC\t\na\tO\t\n")  # a tab at the end of each line
    assert table.rows[0] == {"tokens": ["New York", "a"], "tags": ["B-LOC", "O"]}
    # without borders there is no number of a document
    assert "document" not in table.rows.column_names
    words = tmp_path / "words.bioes"
    words.write_text("no\ntags\n")
    assert read(words, need=("tokens",), split=False).test.column("tokens") == [["no", "tags"]]


@pytest.mark.parametrize(
    ("name", "content", "line", "says"),
    [
        ("a.conll", "a O\nb  \n", 2, "a token without a tag: 1 fields where the first line has 2"),
        ("a.conll", "a O\n\nb X O\r\n", 3, "3 fields where the first line has 2"),
        ("a.bio", "a\tO\n\tO\n", 2, "the token is empty"),
        ("a.conllu", UNIVERSAL + "2\tx\n", 14, "2 fields where the first line has 10"),
        ("a.conll", "# columns: form ner\n\na b O\n", 3, "the header names 2 columns"),
    ],
)
def test_bad_lines_are_named(tmp_path, name, content, line, says):
    with pytest.raises(DataError) as caught:
        tagged(tmp_path, content, name)
    message = str(caught.value)
    assert message.startswith(f"{tmp_path / name}, line {line}: ") and says in message


def test_shared_data_are_read(shared_data):
    conll = read(shared_data("conll2003"), need=("tokens", "tags"))
    msra = read(shared_data("msra_ner"), need=("tokens", "tags"))
    assert [len(conll.train), len(conll.dev), len(conll.test)] == [14041, 3250, 3453]
    assert sum(map(len, conll.train.column("tokens"))) == 203_621
    assert set().union(*msra.dev.column("tags")) >= {"O", "B-PER", "I-LOC"}
