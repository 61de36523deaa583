"""Every published family that loads, by the `model_type` of its configs; encoders, decoders and
encoder-decoders."""

from langue.hub.family import Family
from langue.registry import Registry

FAMILIES: Registry[Family] = Registry(
    {
        "bert": "hub.families.bert:BERT",
        "roberta": "hub.families.roberta:ROBERTA",
        "xlm-roberta": "hub.families.roberta:XLM_ROBERTA",
        "camembert": "hub.families.roberta:CAMEMBERT",
        "distilbert": "hub.families.distilbert:DISTILBERT",
        "electra": "hub.families.electra:ELECTRA",
        "modernbert": "hub.families.modernbert:MODERNBERT",
        "openai-gpt": "hub.families.gpt2:OPENAI_GPT",
        "gpt2": "hub.families.gpt2:GPT2",
        "gpt_neox": "hub.families.gpt_neox:GPT_NEOX",
        "bloom": "hub.families.bloom:BLOOM",
        "llama": "hub.families.llama:LLAMA",
        "mistral": "hub.families.llama:MISTRAL",
        "qwen2": "hub.families.qwen:QWEN2",
        "qwen3": "hub.families.qwen:QWEN3",
        "mixtral": "hub.families.mixture:MIXTRAL",
        "qwen2_moe": "hub.families.mixture:QWEN2_MOE",
        "qwen3_moe": "hub.families.mixture:QWEN3_MOE",
        "gemma2": "hub.families.gemma:GEMMA2",
        "gemma3_text": "hub.families.gemma:GEMMA3",
        "nanochat": "hub.families.nanochat:NANOCHAT",
        "t5": "hub.families.t5:T5",
        "mt5": "hub.families.t5:MT5",
        "bart": "hub.families.bart:BART",
        "mbart": "hub.families.bart:MBART",
        "marian": "hub.families.marian:MARIAN",
    }
)
