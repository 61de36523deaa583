"""Every published family that loads, by the `model_type` of its configs."""

from langue.hub.bart import BART, MBART
from langue.hub.bert import BERT
from langue.hub.bloom import BLOOM
from langue.hub.distilbert import DISTILBERT
from langue.hub.electra import ELECTRA
from langue.hub.family import Family
from langue.hub.gemma import GEMMA2, GEMMA3
from langue.hub.gpt2 import GPT2, OPENAI_GPT
from langue.hub.gpt_neox import GPT_NEOX
from langue.hub.llama import LLAMA, MISTRAL
from langue.hub.marian import MARIAN
from langue.hub.mixture import MIXTRAL, QWEN2_MOE, QWEN3_MOE
from langue.hub.modernbert import MODERNBERT
from langue.hub.nanochat import NANOCHAT
from langue.hub.qwen import QWEN2, QWEN3
from langue.hub.roberta import CAMEMBERT, ROBERTA, XLM_ROBERTA
from langue.hub.t5 import MT5, T5

_ENCODERS = (BERT, ROBERTA, XLM_ROBERTA, CAMEMBERT, DISTILBERT, ELECTRA, MODERNBERT)
_LLAMAS = (LLAMA, MISTRAL, QWEN2, QWEN3, MIXTRAL, QWEN2_MOE, QWEN3_MOE, GEMMA2, GEMMA3)
_DECODERS = (OPENAI_GPT, GPT2, GPT_NEOX, BLOOM, *_LLAMAS, NANOCHAT)
_BOTH = (T5, MT5, BART, MBART, MARIAN)

FAMILIES: dict[str, Family] = {family.name: family for family in (*_ENCODERS, *_DECODERS, *_BOTH)}
