"""What arrives: a tokenizer. What leaves: the ids of the tokens that begin, end, separate, mask and pad, and
of the one that stands for what it does not know."""

from dataclasses import dataclass
from typing import Any

from langue.errors import ModelError
from langue.files import read_json
from langue.text.tokenizer import Tokenizer

# What a token is called where no file says it.
USUAL = {
    "bos": ("<|endoftext|>", "<s>", "<bos>", "<|begin_of_text|>"),
    "eos": ("<|endoftext|>", "</s>", "<eos>", "<|end_of_text|>"),
    "cls": ("[CLS]", "<s>"),
    "sep": ("[SEP]", "</s>"),
    "mask": ("[MASK]", "<mask>"),
    "pad": ("[PAD]", "<pad>"),
    "unk": ("[UNK]", "<unk>"),
}


@dataclass(frozen=True)
class Special:
    """Ids; None where the vocabulary has no such token."""

    bos: int | None
    eos: int | None
    cls: int | None
    sep: int | None
    mask: int | None
    pad: int | None
    unk: int | None
    sentinels: tuple[int, ...]  # T5's <extra_id_0>, <extra_id_1> ...

    def need(self, *names: str) -> int:
        """The first of these that there is."""
        for name in names:
            found: int | None = getattr(self, name)
            if found is not None:
                return found
        raise ModelError(
            f"the tokenizer has no {' or '.join(names)} token",
            do="name it in tokenizer_config.json, or train a tokenizer of the objective's kind",
        )


def special_ids(tokenizer: Tokenizer) -> Special:
    """As tokenizer_config.json and special_tokens_map.json name them, else by their usual names."""
    named: dict[str, Any] = dict(tokenizer.options)
    for file in ("special_tokens_map.json", "tokenizer_config.json"):
        if tokenizer.folder is not None and (tokenizer.folder / file).is_file():
            content = read_json(tokenizer.folder / file)
            named |= content if isinstance(content, dict) else {}
    ids: dict[str, int | None] = {}
    for kind, usual in USUAL.items():
        said = named.get(f"{kind}_token")
        said = said.get("content") if isinstance(said, dict) else said
        words = (said,) if isinstance(said, str) else usual
        found = (tokenizer.backend.token_to_id(word) for word in words)
        ids[kind] = next((int(index) for index in found if index is not None), None)
    if ids["unk"] in (ids["bos"], ids["eos"]):  # GPT-2's, whose bytes know every text
        ids["unk"] = None
    sentinels: list[int] = []
    while (index := tokenizer.backend.token_to_id(f"<extra_id_{len(sentinels)}>")) is not None:
        sentinels.append(int(index))
    return Special(**ids, sentinels=tuple(sentinels))
