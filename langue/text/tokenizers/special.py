"""The ids of a tokenizer's special tokens: begin, end, separator, mask, padding and unknown."""

from dataclasses import dataclass

from tokenizers import models

from langue.errors import ModelError
from langue.text.tokenizers.classes import ROLES
from langue.text.tokenizers.tokenizer import Tokenizer

# The usual names of each role among the tokens that a tokenizer's files declare special, for roles
# that neither a file nor the class defines.
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
    """The ids of the special tokens; None if the vocabulary has no such token."""

    bos: int | None
    eos: int | None
    cls: int | None
    sep: int | None
    mask: int | None
    pad: int | None
    unk: int | None
    sentinels: tuple[int, ...]  # T5's <extra_id_0>, <extra_id_1> ...

    def need(self, *names: str) -> int:
        """Return the first of these that exists; raise ModelError if none does."""
        for name in names:
            found: int | None = getattr(self, name)
            if found is not None:
                return found
        raise ModelError(
            f"the tokenizer has no {' or '.join(names)} token",
            do="name it in tokenizer_config.json, or train a tokenizer of the objective's kind",
        )


def special_ids(tokenizer: Tokenizer) -> Special:
    """Return the tokens of each role, as defined by the tokenizer's files or its class.

    If neither defines a role, it is that of a token with a usual name which the files declare
    special; an ordinary token of the vocabulary never gets a role, whatever its name.
    """
    backend = tokenizer.backend
    special = {
        token.content: index
        for index, token in backend.get_added_tokens_decoder().items()
        if token.special
    }
    ids: dict[str, int | None] = {}
    for role in ROLES:
        name = tokenizer.roles.get(role)
        if name is None and role in tokenizer.roles:  # a file declares that there is none
            ids[role] = None
            continue
        found = None if name is None else backend.token_to_id(name)
        usual = next((special[word] for word in USUAL[role] if word in special), None)
        ids[role] = usual if found is None else int(found)
    if not isinstance(backend.model, models.Unigram):  # Unigram models do not expose theirs
        unknown = backend.model.unk_token  # None for byte-level BPE, which has no unknown text
        ids["unk"] = None if unknown is None else backend.token_to_id(unknown)
    if ids["unk"] in (ids["bos"], ids["eos"]):
        ids["unk"] = None
    sentinels: list[int] = []
    while (index := special.get(f"<extra_id_{len(sentinels)}>")) is not None:
        sentinels.append(int(index))
    return Special(**ids, sentinels=tuple(sentinels))
