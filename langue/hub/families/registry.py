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
from langue.hub.family import Family

_ENCODERS = (BERT, ROBERTA, XLM_ROBERTA, CAMEMBERT, DISTILBERT, ELECTRA, MODERNBERT)
_LLAMAS = (LLAMA, MISTRAL, QWEN2, QWEN3, MIXTRAL, QWEN2_MOE, QWEN3_MOE, GEMMA2, GEMMA3)
_DECODERS = (OPENAI_GPT, GPT2, GPT_NEOX, BLOOM, *_LLAMAS, NANOCHAT)
_BOTH = (T5, MT5, BART, MBART, MARIAN)

FAMILIES: dict[str, Family] = {family.name: family for family in (*_ENCODERS, *_DECODERS, *_BOTH)}
