"""Tokenizers of every kind that is loaded, small, made by the tests themselves; and a published one
where the data are."""

import os
from collections.abc import Callable
from pathlib import Path

import tokenizers
from tokenizers import AddedToken, decoders, models, normalizers, pre_tokenizers

from langue.text.tokenizers.tokenizer import Tokenizer
from tests.tiny_decoder import sentencepiece_tokenizer, trained_tokenizer
from tests.tiny_tokenizer import byte_tokenizer

DATA = Path(os.environ.get("LANGUE_DATA", Path(__file__).parents[2] / "shared" / "data"))
STORIES = DATA / "stories260K"
PRINTABLE = [chr(code) for code in range(33, 127)]


def unigram() -> Tokenizer:
    """Pieces with ▁ for a space, and no bytes to fall back on: T5's kind."""
    letters = [*PRINTABLE, *"ïé北京🙂\n"]
    pieces = [("<unk>", 0.0), ("▁", -2.0), ("▁the", -1.0), ("▁ball", -1.0), ("▁Bob", -1.0)]
    backend = tokenizers.Tokenizer(
        models.Unigram(pieces + [(letter, -5.0) for letter in letters], 0, False)
    )
    backend.pre_tokenizer = pre_tokenizers.Metaspace()
    backend.decoder = decoders.Metaspace()
    return Tokenizer(backend)


def wordpiece(cleanup: bool = True) -> Tokenizer:
    """Whose decoder tidies up: a token may come without the space that stands before others."""
    letters = [*PRINTABLE, *"ï北京🙂é"]
    words = [
        "[UNK]",
        "the",
        "ball",
        "name",
        "do",
        "##n",
        "n",
        *letters,
        *(f"##{letter}" for letter in letters),
    ]
    backend = tokenizers.Tokenizer(
        models.WordPiece(
            {word: index for index, word in enumerate(dict.fromkeys(words))}, unk_token="[UNK]"
        )
    )
    backend.normalizer = normalizers.BertNormalizer(lowercase=True, strip_accents=False)
    backend.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    backend.decoder = decoders.WordPiece(cleanup=cleanup)
    return Tokenizer(backend)


def letters_with_word_ends() -> Tokenizer:
    """The first GPT's kind: the last letter of a word bears a mark."""
    letters = [*PRINTABLE, *"é北"]
    tokens = ["<unk>", *letters, *(f"{letter}</w>" for letter in letters), "th", "the</w>"]
    vocabulary = {token: index for index, token in enumerate(tokens)}
    merges = [("t", "h"), ("th", "e</w>")]
    backend = tokenizers.Tokenizer(
        models.BPE(vocabulary, merges, unk_token="<unk>", end_of_word_suffix="</w>")
    )
    backend.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    backend.decoder = decoders.BPEDecoder(suffix="</w>")
    return Tokenizer(backend)


def characters() -> Tokenizer:
    """One token each; some are marks that combine, or joiners, or flags' letters."""
    known = ["<unk>", "<|endoftext|>", *PRINTABLE, *" \n\r\t", *"é北京e\u0301\u0302\u0308"]
    known += [*"👩👨🏽👧❤\u200d\ufe0f\u20e3🇩🇪🇫🇷", *"한ᄒ\u1161\u11abकि\u094dष"]
    vocabulary = {token: index for index, token in enumerate(dict.fromkeys(known))}
    backend = tokenizers.Tokenizer(models.WordLevel(vocabulary, unk_token="<unk>"))
    backend.pre_tokenizer = pre_tokenizers.Split("", "isolated")
    backend.decoder = decoders.Fuse()
    backend.add_special_tokens([AddedToken("<|endoftext|>", special=True, normalized=False)])
    return Tokenizer(backend)


def words_without_decoder() -> Tokenizer:
    """Whole words, which decoding joins by spaces."""
    words = ["[UNK]", "the", "ball", "é", "北京", ".", "a"]
    backend = tokenizers.Tokenizer(
        models.WordLevel({word: index for index, word in enumerate(words)}, unk_token="[UNK]")
    )
    backend.pre_tokenizer = pre_tokenizers.Whitespace()
    return Tokenizer(backend)


def stories() -> Tokenizer:
    """stories260K's own: 256 of its 512 tokens are bytes."""
    from langue.hub.originals.llama2c import read_tokenizer

    return read_tokenizer(STORIES / "stories260K.bin")


KINDS: dict[str, Callable[[], Tokenizer]] = {
    "bytes": byte_tokenizer,
    "bytes in pieces": lambda: trained_tokenizer(pre_tokenizers.ByteLevel(add_prefix_space=False)),
    "pieces, bytes to fall back on": sentencepiece_tokenizer,
    "pieces without a space in front": lambda: sentencepiece_tokenizer(prefix=False),
    "unigram": unigram,
    "wordpiece": wordpiece,
}
MORE_KINDS: dict[str, Callable[[], Tokenizer]] = {
    **KINDS,
    "wordpiece, not tidied": lambda: wordpiece(cleanup=False),
    "letters with word ends": letters_with_word_ends,
    "characters": characters,
    "no decoder": words_without_decoder,
    "stories260K": stories,
}
