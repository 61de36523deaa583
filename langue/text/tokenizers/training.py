"""Trains a tokenizer on texts by the settings `tokenizer.*`, and saves it in a folder that
`transformers` also reads.

bpe: byte-level byte-pair encoding (Sennrich et al. 2016; bytes: Radford et al. 2019). wordpiece:
BERT's (Schuster and Nakajima 2012). unigram: Kudo 2018. characters, bytes: one token each. All but
wordpiece are reversible, characters and unigram as far as they know the characters of the text.
Training is deterministic, except for unigram, where the library's order of summation varies.

The library's limits are kept where they lose nothing, and removed where they do (long_words.py):
words are split for training at 1,000 characters; if the text has words of more than 100 characters,
WordPiece may also split them in inference instead of treating them as unknown. A piece of unigram
has at most 16 characters, as in SentencePiece.
"""

import json
import threading
import unicodedata
from collections import Counter
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import tokenizers
from tokenizers import Regex, decoders, models, normalizers, pre_tokenizers, processors, trainers

from langue.errors import DataError, SettingsError
from langue.files import disk_errors, write_json
from langue.settings.sections import TokenizerSettings
from langue.text.tokenizers.classes import BERT, END
from langue.text.tokenizers.long_words import LIMIT, WORDPIECE_LIMIT, LongWords
from langue.text.tokenizers.tokenizer import Tokenizer
from langue.text.tokenizers.unknown import ALPHABET

NAMES: dict[str, dict[str, str]] = {  # the special tokens of each type, in the order of their ids
    "bpe": {"bos": END, "eos": END},
    "bytes": {"bos": END, "eos": END},
    "characters": {"unk": "<unk>", "bos": END, "eos": END},
    "unigram": {"pad": "<pad>", "": "</s>", "unk": "<unk>", "bos": END, "eos": END},
    "wordpiece": {role: BERT[role] for role in ("pad", "unk", "cls", "sep", "mask")},
}
SPACE = "\u2581"
# separates words of Khmer, Burmese and Thai; BERT's normaliser removes it
ZERO_WIDTH_SPACE = "\u200b"
UNIGRAM_PIECE = 16  # maximum number of characters of a piece, as in SentencePiece
# minimum share of the text in long words for which WordPiece also splits in inference
LONG_SHARE = 0.001
WAIT = 0.1  # interval in seconds at which the waiting main thread checks for Ctrl-C


def train(
    texts: Iterable[str], chosen: TokenizerSettings, folder: Path, notes: list[str] | None = None
) -> Tokenizer:
    """Train a tokenizer, write tokenizer.json and tokenizer_config.json to `folder`, and load them
    from there.

    notes: receives notes on what was split.
    """
    check(chosen)
    notes = [] if notes is None else notes
    backend = _BUILDERS[chosen.kind](_met(texts), chosen, notes)
    with disk_errors(folder):
        folder.mkdir(parents=True, exist_ok=True)
        backend.save(str(folder / "tokenizer.json"))
        write_json(folder / "tokenizer_config.json", config(chosen))
    return Tokenizer.load(folder)


def special_tokens(chosen: TokenizerSettings) -> list[str]:
    sentinels = [f"<extra_id_{index}>" for index in range(chosen.sentinels)]
    return list(dict.fromkeys([*NAMES[chosen.kind].values(), *chosen.special, *sentinels]))


def config(chosen: TokenizerSettings) -> dict[str, Any]:
    """Return the content of tokenizer_config.json, as `transformers` reads it."""
    named = {f"{name}_token": token for name, token in NAMES[chosen.kind].items() if name}
    others = [token for token in special_tokens(chosen) if token not in named.values()]
    return {
        "tokenizer_class": "PreTrainedTokenizerFast",
        **named,
        **({"additional_special_tokens": others} if others else {}),
        "clean_up_tokenization_spaces": False,
    }


def _fewest(chosen: TokenizerSettings) -> int:
    """Return the number of tokens that every text needs."""
    return len(special_tokens(chosen)) + (256 if chosen.kind == "bpe" else 0)


def check(chosen: TokenizerSettings) -> None:
    """Raise SettingsError if the vocabulary is too small for what it must contain."""
    least = _fewest(chosen)
    if chosen.kind != "bytes" and chosen.vocab_size <= least:
        raise SettingsError(
            f"tokenizer.vocab_size = {chosen.vocab_size} is too small for {chosen.kind}",
            do=(
                f"set it above {least}, which special"
                f" tokens{' and bytes' if chosen.kind == 'bpe' else ''} take"
            ),
        )
    if any(not token.strip() for token in chosen.special):
        raise SettingsError(
            "tokenizer.special has an empty token", do="separate them by commas: <|user|>,<|model|>"
        )


def _met(texts: Iterable[str]) -> Iterator[str]:
    """Yield the texts; raise an error if there are none, since the trainers silently learn nothing
    from nothing.
    """
    met = False
    for text in texts:
        met = met or not text.isspace() and bool(text)
        yield text
    if not met:
        raise DataError("there is no text to train a tokenizer on")


def _normaliser(chosen: TokenizerSettings) -> Any:
    parts: list[Any] = []
    if chosen.normalise != "none":
        parts.append(normalizers.NFC() if chosen.normalise == "nfc" else normalizers.NFKC())
    if chosen.kind == "wordpiece":
        parts += [
            normalizers.BertNormalizer(
                clean_text=True,
                handle_chinese_chars=chosen.chinese,
                strip_accents=not chosen.accents,
                lowercase=chosen.lower,
            )
        ]
    else:
        parts += [] if chosen.accents else [normalizers.NFD(), normalizers.StripAccents()]
        parts += [normalizers.Lowercase()] if chosen.lower else []
    return normalizers.Sequence(parts) if parts else None


def _begun(
    model: Any, chosen: TokenizerSettings, cuts: list[Any], decoder: Any
) -> tokenizers.Tokenizer:
    backend = tokenizers.Tokenizer(model)
    normaliser = _normaliser(chosen)
    if normaliser is not None:
        backend.normalizer = normaliser
    digits = [pre_tokenizers.Digits(individual_digits=True)] if chosen.digits else []
    if chosen.kind not in ("characters", "bytes"):
        cuts = [*cuts, *digits] if chosen.kind == "wordpiece" else [*digits, *cuts]
    if cuts:
        backend.pre_tokenizer = cuts[0] if len(cuts) == 1 else pre_tokenizers.Sequence(cuts)
    backend.decoder = decoder
    return backend


def _learn(backend: tokenizers.Tokenizer, texts: Iterable[str], trainer: Any) -> None:
    """Train in another thread, so that Ctrl-C is noticed: the library does not check for it, and
    may train for minutes.

    An abandoned thread ends with the process.
    """
    failed: list[BaseException] = []

    def learn() -> None:
        try:
            backend.train_from_iterator(texts, trainer)
        except BaseException as error:
            failed.append(error)

    thread = threading.Thread(target=learn, name="tokenizer trainer", daemon=True)
    thread.start()
    while thread.is_alive():
        thread.join(WAIT)
    if failed:
        raise failed[0]


def _bpe(texts: Iterable[str], chosen: TokenizerSettings, notes: list[str]) -> tokenizers.Tokenizer:
    cuts = [pre_tokenizers.ByteLevel(add_prefix_space=False)]
    backend = _begun(models.BPE(), chosen, cuts, decoders.ByteLevel())
    trainer = trainers.BpeTrainer(
        vocab_size=chosen.vocab_size,
        min_frequency=chosen.min_frequency,
        special_tokens=special_tokens(chosen),
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    long = LongWords(LIMIT, backend.normalizer, backend.pre_tokenizer)
    _learn(backend, long.cut(texts), trainer)
    notes += long.note("cut for training")
    return backend


def _wordpiece(
    texts: Iterable[str], chosen: TokenizerSettings, notes: list[str]
) -> tokenizers.Tokenizer:
    model = models.WordPiece(unk_token=BERT["unk"], max_input_chars_per_word=WORDPIECE_LIMIT)
    backend = _begun(model, chosen, [pre_tokenizers.BertPreTokenizer()], decoders.WordPiece())
    held = list(texts)
    if any(ZERO_WIDTH_SPACE in text for text in held):
        parted = normalizers.Replace(ZERO_WIDTH_SPACE, " ")
        backend.normalizer = normalizers.Sequence([parted, backend.normalizer])
    uncut = backend.pre_tokenizer
    kept = _cut_words(backend, held, notes)
    special = special_tokens(chosen)
    alphabet, inner = _alphabet(held, chosen, backend.normalizer, chosen.vocab_size - len(special))
    # The trainer numbers the continuation characters in the order of a hash table, which varies
    # between runs, and breaks ties by number. Listed in advance as special tokens, they always have
    # the same numbers; afterwards they are no longer special.
    trainer = trainers.WordPieceTrainer(
        vocab_size=chosen.vocab_size,
        min_frequency=chosen.min_frequency,
        special_tokens=[*special, *inner],
        initial_alphabet=alphabet,
        limit_alphabet=len(alphabet),
        show_progress=False,
    )
    _learn(backend, held, trainer)
    if not kept:
        backend.pre_tokenizer = uncut
    tree = json.loads(backend.to_str())
    tree["added_tokens"] = [token for token in tree["added_tokens"] if token["content"] in special]
    backend = tokenizers.Tokenizer.from_str(json.dumps(tree))
    cls = BERT["cls"]
    sep = BERT["sep"]
    backend.post_processor = processors.TemplateProcessing(
        single=f"{cls}:0 $A:0 {sep}:0",
        pair=f"{cls}:0 $A:0 {sep}:0 $B:1 {sep}:1",
        special_tokens=[(token, backend.token_to_id(token)) for token in (cls, sep)],
    )
    return backend


def _cut_words(backend: tokenizers.Tokenizer, texts: list[str], notes: list[str]) -> bool:
    """Make the tokenizer split words at WordPiece's limit, if the texts have longer ones.

    Returns whether that is worth its cost in inference, which is a fifth of the total time.
    """
    long = LongWords(WORDPIECE_LIMIT, backend.normalizer, backend.pre_tokenizer)
    long.count(texts)
    if not long.words:
        return False
    cut = pre_tokenizers.Split(Regex(f".{{{WORDPIECE_LIMIT}}}"), "isolated")
    backend.pre_tokenizer = pre_tokenizers.Sequence([backend.pre_tokenizer, cut])
    kept = long.characters >= LONG_SHARE * sum(map(len, texts))
    in_use = (
        "in training and in use"
        if kept
        else "for training; in use, being so rare, they are unknown tokens"
    )
    notes += long.note(f"cut {in_use}")
    return kept


def _alphabet(
    texts: list[str], chosen: TokenizerSettings, normaliser: Any, room: int
) -> tuple[list[str], list[str]]:
    """Return the most frequent characters for which there is room, and their continuation forms.

    A character takes two tokens, at the beginning of a word and inside it; one that is always a
    word by itself takes one.
    """
    counts: Counter[str] = Counter()
    for text in texts:
        counts.update(normaliser.normalize_str(text))
    known: list[str] = []
    inner: list[str] = []
    for character in sorted(counts, key=lambda c: (-counts[c], c)):
        if character.isspace():
            continue
        han = chosen.chinese and "\u4e00" <= character <= "\u9fff"
        digit = chosen.digits and character.isdigit()
        mark = unicodedata.category(character)[0] == "P" or (
            character.isascii() and not character.isalnum()
        )
        alone = han or digit or mark
        room -= 1 if alone else 2
        if room < 0:
            break
        known.append(character)
        inner += [] if alone else [f"##{character}"]
    return sorted(known), sorted(inner)


def _unigram(
    texts: Iterable[str], chosen: TokenizerSettings, notes: list[str]
) -> tokenizers.Tokenizer:
    """Train a unigram tokenizer.

    Spaces are written as SPACE before the word that follows; none is added, so that none must be
    removed.
    """
    cuts = [
        pre_tokenizers.Split(Regex(r"\n"), "isolated"),
        pre_tokenizers.Metaspace(replacement=SPACE, prepend_scheme="never"),
    ]
    decoder = decoders.Metaspace(replacement=SPACE, prepend_scheme="never")
    backend = _begun(models.Unigram(), chosen, cuts, decoder)
    long = LongWords(LIMIT, backend.normalizer, backend.pre_tokenizer)
    held = list(long.cut(texts))
    notes += long.note("cut for training")
    _holds_all(held, chosen, backend.normalizer)
    # number of initial candidates
    options: dict[str, Any] = {"seed_size": min(1_000_000, 32 * chosen.vocab_size)}
    trainer = trainers.UnigramTrainer(
        vocab_size=chosen.vocab_size,
        special_tokens=special_tokens(chosen),
        unk_token=NAMES["unigram"]["unk"],
        max_piece_length=UNIGRAM_PIECE,
        show_progress=False,
        **options,
    )
    _learn(backend, held, trainer)
    return backend


def _holds_all(texts: list[str], chosen: TokenizerSettings, normaliser: Any) -> None:
    """Raise SettingsError if there is no room for all characters.

    The trainer makes each of them a token: it would exceed the requested size, or abort.
    """
    met: set[str] = set()
    for text in texts:
        met.update(text if normaliser is None else normaliser.normalize_str(text))
    least = len(met) + len(special_tokens(chosen))
    if chosen.vocab_size <= least:
        of_bytes = _fewest(chosen.model_copy(update={"kind": "bpe"}))
        raise SettingsError(
            f"tokenizer.vocab_size = {chosen.vocab_size} is too small for unigram, which gives each"
            f" of the text's {len(met):,} characters a token",
            do=f"set it above {least}"
            + (", or choose tokenizer.kind=bpe" if chosen.vocab_size > of_bytes else ""),
        )


def _characters(
    texts: Iterable[str], chosen: TokenizerSettings, notes: list[str]
) -> tokenizers.Tokenizer:
    """Return a tokenizer of the most frequent characters, as byte-pair encoding without merges."""
    normaliser = _normaliser(chosen)
    counts: Counter[str] = Counter()
    for text in texts:
        counts.update(text if normaliser is None else normaliser.normalize_str(text))
    special = special_tokens(chosen)
    known = sorted(
        (c for c, n in counts.items() if n >= chosen.min_frequency), key=lambda c: (-counts[c], c)
    )
    known = sorted(known[: chosen.vocab_size - len(special)])
    vocabulary = {token: index for index, token in enumerate([*special, *known])}
    model = models.BPE(vocabulary, [], unk_token=NAMES["characters"]["unk"])
    backend = _begun(model, chosen, [], decoders.Fuse())
    backend.add_special_tokens(special)
    return backend


def _bytes(
    texts: Iterable[str], chosen: TokenizerSettings, notes: list[str]
) -> tokenizers.Tokenizer:
    """Return a byte tokenizer: the token of a byte is its value; the special tokens follow."""
    for text in texts:
        if not text.isspace():
            break  # nothing is learnt, but there must be some text
    tokens = [*(ALPHABET[byte] for byte in range(256)), *special_tokens(chosen)]
    model = models.BPE({token: index for index, token in enumerate(tokens)}, [])
    cuts = [pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)]
    backend = _begun(model, chosen, cuts, decoders.ByteLevel())
    backend.add_special_tokens(special_tokens(chosen))
    return backend


_BUILDERS = {
    "bpe": _bpe,
    "wordpiece": _wordpiece,
    "unigram": _unigram,
    "characters": _characters,
    "bytes": _bytes,
}
