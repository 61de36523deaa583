"""Every published family that loads, by the `model_type` of its configs."""

from langue.hub.families.bart import BART, MBART
from langue.hub.families.bert import BERT
from langue.hub.families.bloom import BLOOM
from langue.hub.families.distilbert import DISTILBERT
from langue.hub.families.electra import ELECTRA
from langue.hub.families.gemma import GEMMA2, GEMMA3
from langue.hub.families.gpt2 import GPT2, OPENAI_GPT
from langue.hub.families.gpt_neox import GPT_NEOX
from langue.hub.families.llama import LLAMA, MISTRAL
from langue.hub.families.marian import MARIAN
from langue.hub.families.mixture import MIXTRAL, QWEN2_MOE, QWEN3_MOE
from langue.hub.families.modernbert import MODERNBERT
from langue.hub.families.nanochat import NANOCHAT
from langue.hub.families.qwen import QWEN2, QWEN3
from langue.hub.families.roberta import CAMEMBERT, ROBERTA, XLM_ROBERTA
from langue.hub.families.t5 import MT5, T5
from langue.hub.family import Family, with_token_heads

_ENCODERS = (BERT, ROBERTA, XLM_ROBERTA, CAMEMBERT, DISTILBERT, ELECTRA, MODERNBERT)
_LLAMAS = (LLAMA, MISTRAL, QWEN2, QWEN3, MIXTRAL, QWEN2_MOE, QWEN3_MOE, GEMMA2, GEMMA3)
_DECODERS = (OPENAI_GPT, GPT2, GPT_NEOX, BLOOM, *_LLAMAS, NANOCHAT)
_BOTH = (T5, MT5, BART, MBART, MARIAN)

# How the published classes that score single tokens call their output matrix. Those that are not
# here have no such class, or one that reads what no head of ours does.
_CLASSIFIER = {"token": "classifier"}
_SCORE = {"token": "score"}
_SPAN = {"span": "qa_outputs"}
_TOKEN_HEADS: dict[str, dict[str, str]] = {
    **{family.name: _CLASSIFIER | _SPAN for family in (*_ENCODERS, GPT2, GPT_NEOX, BLOOM)},
    **{family.name: _SCORE | _SPAN for family in _LLAMAS},
    MODERNBERT.name: {"token": "classifier", "span": "classifier"},
    GEMMA2.name: _SCORE,
    GEMMA3.name: {},
    T5.name: _CLASSIFIER,
    MT5.name: _CLASSIFIER,
}
# Of these classes, what some put before the names of the body.
_PREFIXES: dict[str, dict[str, str]] = {
    **{family.name: {"span": "transformer."} for family in (LLAMA, QWEN2, QWEN3, QWEN3_MOE)},
    **{family.name: {"token": "transformer."} for family in (T5, MT5)},
}

FAMILIES: dict[str, Family] = {
    family.name: with_token_heads(
        family, **_TOKEN_HEADS.get(family.name, {}), prefixes=_PREFIXES.get(family.name)
    )
    for family in (*_ENCODERS, *_DECODERS, *_BOTH)
}
