"""The tokenizer classes that published folders name, and their defaults.

A tokenizer_config.json is incomplete without its class: what is written nowhere in a RoBERTa folder
is a default of its class. The defaults are those of `transformers` 5 (a test compares them). A
class that is not in the table, or a folder without a class, has no defaults: a token is never
special because of its name alone.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from langue.errors import ModelError
from langue.files import read_json

ROLES = ("bos", "eos", "unk", "sep", "pad", "cls", "mask")
# PreTrainedTokenizerFast, TokenizersBackend: tokenizer.json is complete
GENERIC = "PreTrained"


@dataclass(frozen=True)
class PublishedClass:
    """The defaults of a class, for everything that no file specifies."""

    special: Mapping[str, str] = field(default_factory=dict)  # role -> token
    # the mask token strips the spaces before it (AddedToken.lstrip)
    mask_takes_space: bool = False
    # If not None, add_prefix_space of tokenizer_config.json, by default this value, takes
    # precedence over tokenizer.json.
    prefix_space_default: bool | None = None
    # The vocabulary is that of sentencepiece, and add_prefix_space takes precedence over
    # tokenizer.json if it is present.
    of_sentencepiece: bool = False
    prefix_space_ignored_once: bool = False  # transformers ignored the flag before version 5
    # Before version 5, transformers added bos and eos around a text according to add_bos_token and
    # add_eos_token.
    framed_by_flags_once: bool = False
    # Nothing is added around a text, whatever tokenizer.json says; before version 5, the flags
    # decided.
    never_framed: bool = False


BERT = {"unk": "[UNK]", "sep": "[SEP]", "pad": "[PAD]", "cls": "[CLS]", "mask": "[MASK]"}
_ROBERTA = {
    "bos": "<s>",
    "eos": "</s>",
    "unk": "<unk>",
    "sep": "</s>",
    "pad": "<pad>",
    "cls": "<s>",
    "mask": "<mask>",
}
_MBART50 = {role: token for role, token in _ROBERTA.items() if role != "bos"}
_T5 = {"eos": "</s>", "unk": "<unk>", "pad": "<pad>"}
_LLAMA = {"bos": "<s>", "eos": "</s>", "unk": "<unk>"}
_GEMMA = {"bos": "<bos>", "eos": "<eos>", "unk": "<unk>", "pad": "<pad>", "mask": "<mask>"}
END = "<|endoftext|>"

CLASSES: dict[str, PublishedClass] = {
    GENERIC: PublishedClass(),
    "Bert": PublishedClass(BERT),
    "DistilBert": PublishedClass(BERT),
    "Electra": PublishedClass(BERT),
    "Roberta": PublishedClass(_ROBERTA, mask_takes_space=True, prefix_space_default=False),
    "Bart": PublishedClass(_ROBERTA, mask_takes_space=True, prefix_space_default=False),
    "XLMRoberta": PublishedClass(
        _ROBERTA, mask_takes_space=True, of_sentencepiece=True, prefix_space_ignored_once=True
    ),
    "Camembert": PublishedClass(_ROBERTA, mask_takes_space=True),
    "MBart": PublishedClass(_ROBERTA, mask_takes_space=True),
    "MBart50": PublishedClass(_MBART50, mask_takes_space=True),
    "GPT2": PublishedClass({"bos": END, "eos": END, "unk": END}, prefix_space_default=False),
    "GPTNeoX": PublishedClass(
        {"bos": END, "eos": END, "unk": END, "pad": "<|padding|>"},
        prefix_space_default=False,
        never_framed=True,
    ),
    "Qwen2": PublishedClass({"eos": END, "unk": END, "pad": END}, prefix_space_default=False),
    "OpenAIGPT": PublishedClass({"unk": "<unk>"}),
    "Llama": PublishedClass(_LLAMA, of_sentencepiece=True, framed_by_flags_once=True),
    "CodeLlama": PublishedClass(_LLAMA, of_sentencepiece=True, framed_by_flags_once=True),
    "Gemma": PublishedClass(_GEMMA, framed_by_flags_once=True),
    "T5": PublishedClass(_T5),
    "MT5": PublishedClass(_T5),
    "ByT5": PublishedClass(_T5),
    "Marian": PublishedClass(_T5),
    "MPNet": PublishedClass(_ROBERTA | {"unk": "[UNK]"}, mask_takes_space=True),
    "Albert": PublishedClass(
        {
            **{"bos": "[CLS]", "eos": "[SEP]", "unk": "<unk>", "sep": "[SEP]", "pad": "<pad>"},
            **{"cls": "[CLS]", "mask": "[MASK]"},
        },
        mask_takes_space=True,
    ),
    "DebertaV2": PublishedClass({"bos": "[CLS]", "eos": "[SEP]", **BERT}),
    "Deberta": PublishedClass(
        {"bos": "[CLS]", "eos": "[SEP]", **BERT}, mask_takes_space=True, prefix_space_default=False
    ),
    "Nllb": PublishedClass(_ROBERTA, mask_takes_space=True),
    "M2M100": PublishedClass(_T5 | {"bos": "<s>", "sep": "</s>"}),
    "Pegasus": PublishedClass(_T5 | {"mask": "<mask_2>"}),
    "Cohere": PublishedClass(
        {
            **{
                "bos": "<BOS_TOKEN>",
                "eos": "<|END_OF_TURN_TOKEN|>",
                "unk": "<UNK>",
                "pad": "<PAD>",
            },
            **{"sep": "<SEP>", "cls": "<CLS>", "mask": "<MASK_TOKEN>"},
        }
    ),
}

# The class of a folder that names none, by the model_type of its config.json.
OF_MODEL_TYPE: dict[str, str] = {
    **dict.fromkeys(("bert", "ernie", "nomic_bert", "distilbert", "electra"), "Bert"),
    **dict.fromkeys(("roberta", "data2vec-text", "bart"), "Roberta"),
    **{"xlm-roberta": "XLMRoberta", "camembert": "Camembert", "mbart": "MBart", "marian": "Marian"},
    **{"openai-gpt": "OpenAIGPT", "gpt_neox": "GPTNeoX", "pegasus": "Pegasus", "mpnet": "MPNet"},
    **{"albert": "Albert", "m2m_100": "M2M100", "deberta-v2": "DebertaV2", "deberta": "Deberta"},
    **dict.fromkeys(("gpt2", "gpt_neo", "opt", "starcoder2", "gptj", "phi"), "GPT2"),
    **dict.fromkeys(("cohere", "cohere2"), "Cohere"),
    **dict.fromkeys(("qwen2", "qwen2_moe", "qwen3", "qwen3_moe"), "Qwen2"),
    **dict.fromkeys(("gemma", "gemma2", "gemma3_text"), "Gemma"),
    **dict.fromkeys(("t5", "mt5"), "T5"),
    **dict.fromkeys(("llama", "mistral", "mixtral", "modernbert", "bloom", "nanochat"), GENERIC),
    **dict.fromkeys(
        (
            "eurobert",
            "arcee",
            "seed_oss",
            "phi3",
            "stablelm",
            "smollm3",
            "granite",
            "olmo2",
            "olmo3",
            *("gpt_bigcode", "falcon", "glm", "glm4", "exaone4", "umt5"),
            *("ministral", "ministral3", "helium", "ernie4_5", "gpt_oss"),
        ),
        GENERIC,
    ),
}

# The class of a folder without any of these, or with the generic class but no tokenizer.json, by
# the file that it contains.
OF_FILE: dict[str, str] = {
    "vocab.txt": "Bert",
    "spiece.model": "T5",
    "spm.model": "DebertaV2",
    "tokenizer.model": "Llama",
    "sentencepiece.bpe.model": "XLMRoberta",
}


def class_name(value: Any) -> str:
    """Return the name of a tokenizer class without suffixes: `Bert` for BertTokenizerFast; empty if
    `value` is not a name.
    """
    name = str(value or "").removesuffix("Fast").removesuffix("Tokenizer")
    return GENERIC if name == "TokenizersBackend" else name


def read_object(file: Path) -> dict[str, Any]:
    """Return the JSON object in a file, empty if there is no such file; raise ModelError if it
    contains something else.
    """
    content = read_json(file) if file.is_file() else {}
    if not isinstance(content, dict):
        raise ModelError("the file is not a JSON object", where=str(file))
    return content


def class_of(folder: Path | None, options: Mapping[str, Any]) -> str:
    """Return the class of a folder's tokenizer, empty if it cannot be determined.

    As in AutoTokenizer, it is named by tokenizer_config.json or config.json, or that of the
    model_type. If there is none of these, it is that of a file which only one class has.
    """
    named = class_name(options.get("tokenizer_class"))
    if folder is None:
        return named
    if not named:
        config = read_object(folder / "config.json")
        named = class_name(config.get("tokenizer_class")) or OF_MODEL_TYPE.get(
            str(config.get("model_type")), ""
        )
    if named not in ("", GENERIC) or (folder / "tokenizer.json").is_file():
        return named
    return next((kind for file, kind in OF_FILE.items() if (folder / file).is_file()), named)


def check_class(kind: str, known: tuple[str, ...], file: Path) -> None:
    """Raise ModelError if a class is named that is not among those known to use a file
    in this way.
    """
    if kind not in ("", GENERIC, *known):
        raise ModelError(
            f"how {kind}Tokenizer uses this file is not known",
            where=str(file),
            do=(
                "put a tokenizer.json beside it:"
                " AutoTokenizer.from_pretrained(...).save_pretrained(...)"
            ),
        )
