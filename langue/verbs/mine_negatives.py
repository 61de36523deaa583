"""Mine hard negatives for pairs of query and answer: documents that an embedding model ranks as
answers although they are not.
"""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from langue.errors import SettingsError
from langue.files import atomic_file, refuse_existing
from langue.progress import say
from langue.runs.model import load
from langue.statistics import retrieval
from langue.tasks.columns import COMPARED_SYNONYMS
from langue.text.read.source import Table, read


def mine_negatives(
    *,
    model: str | Path,
    data: Any,
    out: str | Path,
    documents: Any = None,
    columns: Mapping[str, str] | None = None,
    number: int = 3,
    skip: int = 0,
    margin: float = 0.05,
    force: bool = False,
) -> dict[str, Any]:
    """Mine hard negatives, and write triples that `finetune --task embed` reads.

    The output is JSON lines with `anchor`, `positive` and `negative_1` to `negative_k`. Returns
    counts of pairs, documents and negatives.

    model: an embedding model.
    data: pairs, in the columns `text` and `pair`.
    out: the file to write. force: replace it if it exists.
    documents: additional texts to search, in a column `text`; None: only the answers of all pairs.
    columns: our names -> names in the data.
    number: negatives for each pair.
    skip: number of nearest documents to skip.
    margin: skip documents whose cosine is above (1 - margin) times that of the answer, because many
        of them are answers themselves.

    Raises SettingsError if number, skip or margin is out of range.
    """
    if number < 1 or skip < 0 or not 0 <= margin < 1:
        raise SettingsError(
            f"number = {number}, skip = {skip}, margin = {margin} cannot be mined by",
            do="give a number of 1 or more, a skip of 0 or more, and a margin from 0 to below 1",
        )
    refuse_existing(out, force)
    known_as: dict[str, Any] = {"split": False, "synonyms": COMPARED_SYNONYMS}
    found = read(data, columns=columns, need=("text", "pair"), **known_as)
    table = _only(found.test, found.train, found.dev)
    pairs = list(zip(table.column("text"), table.column("pair"), strict=True))
    more: list[str] = []
    if documents is not None:
        searched = read(documents, need=("text",), **known_as)
        more = _only(searched.test, searched.train, searched.dev).column("text")
    whole = retrieval.collect([text for text, _ in pairs], [(pair,) for _, pair in pairs])
    known = set(whole.documents)
    searched_texts = [*whole.documents, *dict.fromkeys(text for text in more if text not in known)]
    whole = retrieval.Collection(
        whole.queries, searched_texts, whole.first, whole.places, whole.relevant
    )
    encoder = load(model, dtype="auto")
    vectors = encoder.encode_query(whole.queries), encoder.encode_document(whole.documents)
    query_of = {text: place for place, text in enumerate(whole.queries)}
    document_of = {text: place for place, text in enumerate(whole.documents)}
    mined = retrieval.mine(
        whole,
        (vectors[0].astype(np.float64), vectors[1].astype(np.float64)),
        [(query_of[text], document_of[pair]) for text, pair in pairs],
        number=number,
        skip=skip,
        margin=margin,
    )
    with atomic_file(Path(out)) as temporary, temporary.open("w", encoding="utf-8") as handle:
        for (text, pair), negatives in zip(pairs, mined.negatives, strict=True):
            row = {"anchor": text, "positive": pair}
            row |= {
                f"negative_{place}": whole.documents[each]
                for place, each in enumerate(negatives, start=1)
            }
            handle.write(json.dumps(row, ensure_ascii=False) + "\n")
    counts = [len(negatives) for negatives in mined.negatives]
    return {
        "out": str(out),
        "pairs": len(pairs),
        "documents": len(whole.documents),
        "negatives": sum(counts),
        "too_near": mined.too_near,
        "short": sum(count < number for count in counts),
        "without": counts.count(0),
    }


def _only(*tables: Table | None) -> Table:
    """Return the one table that is used, and report those that are not."""
    there = [table for table in tables if table is not None]
    if len(there) > 1:
        left = ", ".join(table.origin for table in there[1:])
        say(f"reading {there[0].origin}, not {left}")
    return there[0]
