"""Files that are not UTF-8: the right encoding is offered, its decoded line with it, and taken when
it is named."""

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from langue.errors import DataError
from langue.text.read.documents import Reading, Tally, open_texts
from langue.text.read.encodings import OFFERED, candidates
from langue.text.read.source import read

SAID = {
    "de": "Der Film war sehr schön, aber die Straße hätte für größere Autos offen sein müssen.",
    "fr": "Le film était très réussi, mais où étaient les élèves de l'école ? Ça m'a plu, à Noël.",
    "es": "La película fue increíble; ¿quién dirigió la última canción? El niño soñó con España.",
    "pt": "O filme é muito bom, não há dúvida; as crianças são ótimas, e a atuação é excelente.",
    "sv": "Filmen var mycket bra, men jag förstår inte varför hon åkte så långt över ån på våren.",
    "en": "It’s a “great” film — the café scene cost £5 and I’d watch it again… naïve, but fun.",
    "pl": "Ten film był naprawdę świetny, choć zakończenie mogło być lepsze. Żółta łódź płynęła.",
    "cs": "Ten film byl opravdu skvělý, ale závěr mohl být lepší. Příliš žluťoučký kůň úpěl.",
    "hu": "A film nagyon jó volt, de a végét jobban is megírhatták volna. Árvíztűrő, őszintén.",
    "ru": "Фильм был действительно очень хорошим, но концовка могла бы быть лучше. Мне понравился.",
    "uk": "Фільм був справді чудовий, але кінцівка могла б бути кращою. Її гра дуже сподобалася.",
    "bg": "Филмът беше наистина много добър, но краят можеше да бъде по-добър. Играха чудесно.",
    "el": "Η ταινία ήταν πραγματικά πολύ καλή, αλλά το τέλος θα μπορούσε να είναι καλύτερο.",
    "tr": "Film gerçekten çok güzeldi, ama sonu daha iyi olabilirdi. Işıklar söndüğünde şaşırdım.",
    "he": "הסרט היה באמת טוב מאוד, אבל הסוף היה יכול להיות טוב יותר. השחקנים שיחקו נהדר.",
    "ar": "كان الفيلم جيدا جدا حقا، لكن النهاية كان يمكن أن تكون أفضل. الممثلون كانوا رائعين.",
    "zh": "这部电影真的很好看，但是结局可以更好一些。演员们表演得非常出色，音乐也很动听。",
    "zh-TW": "這部電影真的很好看，但是結局可以更好一些。演員們表演得非常出色，音樂也很動聽。",
    "ja": "この映画は本当にとても良かったですが、結末はもっと良くできたと思います。演技も。",
    "ko": "이 영화는 정말 좋았지만 결말은 더 좋을 수 있었다고 생각합니다. 연기도 훌륭했습니다.",
    "th": "ภาพยนตร์เรื่องนี้ดีมากจริงๆ แต่ตอนจบน่าจะดีกว่านี้ นักแสดงแสดงได้ยอดเยี่ยม",
}
WRITTEN = {
    "cp1252": ("de", "fr", "es", "pt", "sv", "en"),
    "cp850": ("de",),
    "mac_roman": ("de",),
    "cp1250": ("pl", "cs", "hu"),
    "iso8859-2": ("pl",),
    "cp1251": ("ru", "uk", "bg"),
    "koi8-r": ("ru",),
    "cp866": ("ru",),
    "iso8859-5": ("ru",),
    "cp1253": ("el",),
    "cp1254": ("tr",),
    "cp1255": ("he",),
    "cp1256": ("ar",),
    "gbk": ("zh",),
    "gb18030": ("zh",),
    "big5": ("zh-TW",),
    "shift_jis": ("ja",),
    "euc_jp": ("ja",),
    "cp949": ("ko",),
    "cp874": ("th",),
    "utf-16-le": ("de", "ru", "zh"),
    "utf-16-be": ("en",),
}
PAIRS = [(language, encoding) for encoding, those in WRITTEN.items() for language in those]


def refused(file, **kwargs):
    with pytest.raises(DataError) as caught:
        read(file, need=["text", "label"], split=False, **kwargs)
    return str(caught.value)


@pytest.mark.parametrize(("language", "encoding"), PAIRS)
def test_the_right_encoding_is_among_those_offered_and_is_taken(tmp_path, language, encoding):
    file = tmp_path / "a.tsv"
    text = SAID[language]
    file.write_bytes(f"text\tlabel\nfine\tgood\n{text}\tbad\n".encode(encoding))
    message = refused(file)
    assert "\n" not in message and f"-t utf-8 {file} > {tmp_path / 'a.utf-8.tsv'}" in message
    offered = dict(re.findall(r"([\w-]+) \(([^()]+)\)", message.partition("right:")[2] or message))
    assert 1 <= len(offered) <= OFFERED
    right = {}
    for name, shown in offered.items():
        try:
            source = read(file, need=["text", "label"], split=False, encoding=name)
        except DataError:  # only a part of the file is of this encoding
            continue
        if source.test.column("text") == ["fine", text]:
            right[name] = shown
            assert f"read as {name}: " in source.notes[0] and "reads wrong" not in source.notes[0]
    # for people to see which it is
    assert right and all(shown in text or "label" in shown for shown in right.values())
    assert len(set(offered.values())) == len(offered)


def test_windows_1252_is_never_told_to_be_cyrillic(tmp_path):
    file = tmp_path / "a.csv"
    for language in ("de", "fr", "es", "pt", "sv", "en"):
        file.write_bytes(f"text,label\n{SAID[language]}\n".encode("cp1252"))
        assert "windows-1251" not in refused(file)


def test_a_named_encoding_that_gives_garbage_without_an_error_is_told(tmp_path):
    file = tmp_path / "a.tsv"
    file.write_bytes(f"text\tlabel\n{SAID['ru']}\t1\n".encode("koi8-r"))
    source = read(file, need=["text", "label"], split=False, encoding="cp1252")
    assert "if that reads wrong, it may be koi8-r (Фильм был" in source.notes[0]


def test_a_byte_that_is_not_of_the_named_encoding_is_one_line(tmp_path):
    file = tmp_path / "a.tsv"
    file.write_bytes(f"text\tlabel\nfine\t1\n{SAID['de']}\t1\n".encode("cp1252"))
    message = refused(file, encoding="shift_jis")
    assert message.startswith(f"{file}, line 3: a byte of the line is not shift_jis; ")
    assert "windows-1252 (" in message


@pytest.mark.parametrize("encoding", ["utf-16", "utf-32", "utf-8-sig"])
def test_a_byte_order_mark_says_the_encoding(tmp_path, encoding):
    file = tmp_path / "a.csv"
    file.write_bytes(f"text,label\n{SAID['zh']},1\n\nfine\n".encode(encoding))
    assert refused(file).startswith(f"{file}, line 4: 1 fields")
    file.write_bytes(f"text,label\n{SAID['zh']},1\n".encode(encoding))
    source = read(file, need=["text", "label"], split=False, encoding="cp1251")
    assert source.test.column("text") == [SAID["zh"]] and not source.notes


def test_utf8_stays_what_it_is_beside_files_of_a_named_encoding(tmp_path):
    (tmp_path / "train.tsv").write_bytes(f"text\tlabel\n{SAID['zh']}\t1\n".encode("gbk"))
    for split in ("dev", "test"):
        (tmp_path / f"{split}.tsv").write_text(f"text\tlabel\n{SAID['zh']}\t1\n", "utf-8")
    source = read(tmp_path, need=["text", "label"], encoding="gbk")
    assert [table.column("text") for table in (source.train, source.dev, source.test)] == [
        [SAID["zh"]]
    ] * 3
    assert len(source.notes) == 1


@given(st.binary(max_size=80))
def test_a_guess_at_an_encoding_never_fails(sample):
    assert len(candidates(sample)) <= OFFERED


@pytest.mark.parametrize(
    ("language", "read_as"),
    [("de", "cp1252"), ("fr", "latin-1"), ("ru", "cp1251"), ("zh", "gb18030"), ("th", "latin-1")],
)
def test_texts_that_were_read_wrongly_before_are_told(language, read_as):
    garbage = SAID[language].encode().decode(read_as, "ignore")
    if garbage.encode(read_as).decode("utf-8", "replace") != SAID[language]:
        pytest.skip("this text cannot be garbled so")
    rows = [{"text": garbage, "label": 1}, {"text": "fine", "label": 1}]
    (note,) = read(rows, need=["text", "label"], split=False).notes
    assert "1 texts read like UTF-8 that was once read as" in note


def test_texts_of_every_language_are_no_garbage():
    rows = [{"text": text, "label": 1} for text in (*SAID.values(), "£5", "naïve", "¿é?", "Å Ø")]
    assert not read(rows, need=["text", "label"], split=False).notes


def test_documents_in_a_named_encoding(tmp_path):
    (tmp_path / "a.txt").write_bytes(SAID["zh"].encode("gbk"))
    reading = Reading(encoding="gbk")
    notes = []
    (source,) = open_texts([str(tmp_path)], reading, notes)
    assert [piece.text for piece in source.pieces(reading, Tally())] == [SAID["zh"]]
    assert notes == [f"{tmp_path / 'a.txt'}: read as gbk: {SAID['zh'][:32]}"]
