"""Loads M2M-100's sentencepiece.bpe.model and vocab.json as a tokenizer with the same ids as
`transformers`' M2M100Tokenizer.

Like that of Marian, it splits a text with sentencepiece and looks up the pieces in its vocabulary,
which is followed by the language codes (Fan et al. 2020, arXiv:2010.11125).
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import tokenizers
from tokenizers import AddedToken, models

from langue.files import read_json
from langue.text.tokenizers import declared, marian
from langue.text.tokenizers.classes import check_class, class_of
from langue.text.tokenizers.languages import M2M100, WMT21, languages_of
from langue.text.tokenizers.sentencepiece import read

FILES = ("sentencepiece.bpe.model", "vocab.json")


def load(folder: Path, options: Mapping[str, Any]) -> marian.Sides:
    """Load the tokenizer of a folder with these files; raise ModelError if its class uses them in
    another way.
    """
    pieces, names = (folder / name for name in FILES)
    check_class(class_of(folder, options), ("M2M100",), pieces)
    ids = read_json(names)
    marian.check_vocabulary(ids, str(names))
    codes = WMT21 if options.get("language_codes") == "wmt21" else M2M100
    found = declared.read(folder, options, "M2M100")
    special = tuple(name for name in found.special | found.defaults if name not in codes)
    # texts do not begin with a code in angle brackets, and are tokenized unchanged
    side = marian.Side(marian.make_side(read(pieces), ids, special).backend, prepare=str)
    reader = tokenizers.Tokenizer(models.WordLevel(ids, unk_token="<unk>"))
    reader.decoder = side.backend.decoder
    unseen = [name for name in special if name in ids]
    for backend in (side.backend, reader):
        added = [*unseen, *codes]
        backend.add_special_tokens([AddedToken(n, special=True, normalized=False) for n in added])
    return marian.Sides(side, side, reader, languages_of(side.backend, "M2M100"))
