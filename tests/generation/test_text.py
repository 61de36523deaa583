"""Text as it comes: the same as that of all tokens at once, and nothing is ever taken back."""

import functools
import random
import re
import time
import unicodedata

import pytest
import tokenizers
from tokenizers import Regex, decoders

from langue.errors import ModelError
from langue.generation.text import MOST_RUN, TextStream
from langue.text.tokenizers.decoding import decoding_of
from langue.text.tokenizers.tokenizer import HALF, Tokenizer
from tests.tiny_decoder import sentencepiece_tokenizer
from tests.tiny_tokenizer import byte_tokenizer
from tests.tokenizer_kinds import MORE_KINDS, STORIES, characters, wordpiece

TEXTS = [
    "The ball's 1234 is   in the\n\nweb: naïve, 北京, don't\tWE'RE 🙂 there.",
    "👩🏽‍❤️‍👨 and 👨‍👩‍👧 fly 🇩🇪🇫🇷🇩🇪 1️⃣ कि क्ष 한국어 각 e\u0301\u0302x\r\ny",
    " a  b ",
]


@pytest.fixture(scope="module", params=MORE_KINDS)
def tokenizer(request):
    if request.param == "stories260K" and not STORIES.is_dir():
        pytest.skip(f"no {STORIES}: set LANGUE_DATA to the folder that has it")
    return MORE_KINDS[request.param]()


def streamed(tokenizer, tokens, context=None, stop=()):
    stream = TextStream(tokenizer, context, stop)
    parts = []
    for token in tokens:
        parts.append(stream.add(token))
        if stream.stopped:
            break
    parts.append(stream.finish())
    assert stream.text == "".join(parts)
    return parts, stream


def expected(tokenizer, tokens, context=None):
    if context is None:
        return tokenizer.decode(tokens)
    return tokenizer.continuation(context, tokens)[1]


@functools.lru_cache(maxsize=2)
def known_ids(tokenizer):
    return [token for text in TEXTS for token in tokenizer.backend.encode(text).ids]


def random_ids(tokenizer, draw, most=60):
    """Of all tokens, special and unknown ones among them; sometimes mostly bytes."""
    size = draw.randrange(most)
    run = sorted(decoding_of(tokenizer).run_bytes)
    text = known_ids(tokenizer)
    ids = list[int]()
    while len(ids) < size:
        kind = draw.random()
        if kind < 0.4:
            start = draw.randrange(len(text) - 1) if len(text) > 1 else 0
            ids += text[start : start + draw.randrange(1, 12)]
        elif kind < 0.6 and run:
            ids += draw.choices(run, k=draw.randrange(1, 5))
        elif kind < 0.7 and run:
            ids += [run[byte] for byte in draw.choice(["é", "北", "🙂"]).encode()]
        else:
            ids.append(draw.randrange(len(tokenizer) + 3))
    return ids[:size]


def test_random_ids_come_out_as_all_at_once(tokenizer):
    draw = random.Random(0)
    for _ in range(400):
        ids = random_ids(tokenizer, draw)
        parts, _ = streamed(tokenizer, ids)
        assert "".join(parts) == tokenizer.decode(ids), ids


def test_random_ids_behind_a_context_go_on_from_it(tokenizer):
    draw = random.Random(1)
    for _ in range(400):
        context = random_ids(tokenizer, draw, 30)
        ids = random_ids(tokenizer, draw, 30)
        parts, _ = streamed(tokenizer, ids, context)
        assert "".join(parts) == expected(tokenizer, ids, context), (context, ids)


def test_what_is_given_out_stays_whatever_follows(tokenizer):
    """What was given out begins the text of any tokens that begin with the same ones."""
    draw = random.Random(2)
    for _ in range(40):
        ids = random_ids(tokenizer, draw)
        stream = TextStream(tokenizer)
        given = ""
        for end, token in enumerate(ids, 1):
            given += stream.add(token)
            other = ids[:end] + random_ids(tokenizer, draw, 6)
            assert tokenizer.decode(other).startswith(given)


def cut_at_stops(text, stops):
    """By the definition: the first character that ends a stop string, the longest of those."""
    for end in range(1, len(text) + 1):
        found = [stop for stop in stops if text[:end].endswith(stop)]
        if found:
            return text[: end - max(map(len, found))], True
    return text, False


def test_nothing_of_a_stop_string_is_given_out(tokenizer):
    draw = random.Random(3)
    stopped = 0
    for _ in range(300):
        ids = random_ids(tokenizer, draw)
        whole = tokenizer.decode(ids)
        stops = []
        for _ in range(draw.randrange(1, 4)):
            start = draw.randrange(len(whole) + 1)
            stops.append(whole[start : start + draw.randrange(1, 9)] or "x")
        if draw.random() < 0.3:
            stops = [stop + "§" for stop in stops]
        text, cut = cut_at_stops(whole, stops)
        parts, stream = streamed(tokenizer, ids, stop=stops)
        assert ("".join(parts), stream.stopped) == (text, cut), (ids, stops)
        stopped += cut
    assert 50 < stopped < 300


def test_no_part_begins_within_a_character(tokenizer):
    """A combining mark, a joiner or half a flag never comes without what it belongs to."""
    draw = random.Random(4)
    for text in TEXTS * 10:
        ids = tokenizer.backend.encode(text, add_special_tokens=False).ids
        ids += random_ids(tokenizer, draw, 10)
        parts, stream = streamed(tokenizer, ids)
        given = ""
        for part in parts:
            if part and given and not given[-1].isspace():
                assert unicodedata.category(part[0])[0] != "M", (given, part)
                assert part[0] != "\u200d" and given[-1] != "\u200d", (given, part)
                flags = len(given) - len(given.rstrip("🇩🇪🇫🇷"))
                assert flags % 2 == 0 or part[0] not in "🇩🇪🇫🇷", (given, part)
            given += part
        assert given == tokenizer.decode(ids)


def test_emoji_of_several_code_points_come_whole():
    tokenizer = characters()
    text = "a 👩🏽‍❤️‍👨🇩🇪🇫🇷e\u0301\u0302x한ᄒ\u1161\u11ab\r\nक\u094dष "
    parts, _ = streamed(tokenizer, tokenizer.backend.encode(text).ids)
    assert [part for part in parts if part] == [
        *("a ", "👩🏽‍❤️‍👨", "🇩🇪", "🇫🇷", "e\u0301\u0302", "x", "한"),
        *("ᄒ\u1161\u11ab", "\r\n", "क\u094dष "),
    ]


def test_characters_are_those_of_unicode():
    """Of random code points: text is cut only where the regex library sees a character end, or
    behind white space."""
    regex = pytest.importorskip("regex")
    tokenizer = characters()
    draw = random.Random(7)
    for _ in range(300):
        ids = [draw.randrange(2, len(tokenizer)) for _ in range(40)]
        parts, _ = streamed(tokenizer, ids)
        text = "".join(parts)
        ends = {found.end() for found in regex.finditer(r"\X", text)}
        ends |= {at for at in range(1, len(text)) if text[at - 1].isspace()}
        at = 0
        for part in parts:
            at += len(part)
            assert at == 0 or at in ends, (text[:at], text[at:])


def test_a_pile_of_marks_is_not_held_back_for_ever():
    tokenizer = characters()
    ids = tokenizer.backend.encode("e" + "\u0301" * 200).ids
    stream = TextStream(tokenizer)
    assert "".join(stream.add(token) for token in ids).startswith("e" + "\u0301" * 160)


def test_bytes_are_held_back_until_they_are_a_character():
    tokenizer = byte_tokenizer()
    stream = TextStream(tokenizer)
    parts = [stream.add(token) for token in tokenizer.backend.encode("é🙂a\n").ids]
    # each character waits for the next, which might be a mark on it; a line's end waits for none
    assert parts == ["", "", "", "", "", "é", "🙂", "a\n"]


def run_of(text):
    tokenizer = sentencepiece_tokenizer()
    return tokenizer, [tokenizer.backend.token_to_id(f"<0x{byte:02X}>") for byte in text.encode()]


def test_a_long_run_of_bytes_is_given_out_meanwhile():
    tokenizer, ids = run_of("北京" * 100)
    stream = TextStream(tokenizer, [5])
    given = 0
    for count, token in enumerate(ids, 1):
        given += len(stream.add(token))
        assert 3 * given > count - MOST_RUN - 9
    assert stream.text + stream.finish() == "北京" * 100


def test_what_a_long_run_has_given_out_stays_where_it_breaks():
    """The exception: `decode` drops the whole run."""
    tokenizer, ids = run_of("北" * 30)
    broken = [*ids, tokenizer.backend.token_to_id("<0xFF>"), ids[0], *ids[:3]]
    parts, _ = streamed(tokenizer, broken)
    whole = "".join(parts)
    assert re.fullmatch(f"北{{22,30}}{HALF}+", whole)
    assert tokenizer.decode(broken) == HALF * len(broken)
    assert len(whole.encode()) >= len(ids)


def test_a_decoder_that_is_not_known_is_asked_for_the_whole_text():
    tokenizer = wordpiece()
    backend = tokenizers.Tokenizer.from_str(tokenizer.backend.to_str())
    tidy = decoders.Replace(Regex(r" (?=[.,])"), "")
    backend.decoder = decoders.Sequence([backend.decoder, decoders.Fuse(), tidy])
    odd = Tokenizer(backend)
    assert not decoding_of(odd).is_local and decoding_of(tokenizer).is_local
    draw = random.Random(5)
    for _ in range(100):
        context = random_ids(odd, draw, 20)
        ids = random_ids(odd, draw)
        assert "".join(streamed(odd, ids)[0]) == odd.decode(ids)
        parts, _ = streamed(odd, ids, context)
        assert "".join(parts) == odd.continuation(context, ids)[1]


@pytest.mark.parametrize("stop", ["", None, 5])
def test_a_stop_string_that_is_none_is_refused(stop):
    with pytest.raises(ModelError, match="stop"):
        TextStream(byte_tokenizer(), None, [stop])


def test_a_stop_string_of_ten_thousand_characters():
    tokenizer = byte_tokenizer()
    stop = "ab" * 5000
    ids = tokenizer.backend.encode("x" + "ab" * 4999 + "ac" + stop + "y").ids
    parts, stream = streamed(tokenizer, ids, stop=[stop])
    assert "".join(parts) == "x" + "ab" * 4999 + "ac" and stream.stopped
    assert stream.add(ids[0]) == "" and stream.finish() == ""


@pytest.mark.timed
def test_a_token_takes_as_long_late_as_early(tokenizer):
    draw = random.Random(6)
    ids = [token for _ in range(200) for token in random_ids(tokenizer, draw)]
    stream = TextStream(tokenizer, ids[:500], ["\0stop"])
    began = time.thread_time()
    for token in ids:
        stream.add(token)
    # whole texts decoded anew would take 1.5 ms a token
    assert (time.thread_time() - began) / len(ids) < 0.0005
