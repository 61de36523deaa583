"""All supported families of published models, by the `model_type` of their configs: encoders,
decoders and encoder-decoders.
"""

from langue.hub.family import Family, with_token_heads
from langue.registry import Registry

# The name of the output matrix in the published classes that score single tokens. Families that are
# missing here have no such class, or one that reads states that none of our heads reads.
_CLASSIFIER = {"token": "classifier"}
_SCORE = {"token": "score"}
_SPAN = {"span": "qa_outputs"}
_ENCODERS = (
    *("bert", "roberta", "xlm-roberta", "camembert", "distilbert", "electra"),
    *("ernie", "data2vec-text", "mpnet", "albert", "deberta", "deberta-v2"),
)
_LLAMAS = (
    *("llama", "mistral", "qwen2", "qwen3", "mixtral", "qwen2_moe", "qwen3_moe"),
    *("arcee", "seed_oss", "smollm3", "exaone4", "ministral", "ministral3"),
)
_TOKEN_HEADS: dict[str, dict[str, str]] = {
    **{name: _CLASSIFIER | _SPAN for name in (*_ENCODERS, "gpt2", "gpt_neo", "gpt_neox", "bloom")},
    "gpt_bigcode": _CLASSIFIER,
    "falcon": _CLASSIFIER | _SPAN,
    **{name: _SCORE | _SPAN for name in _LLAMAS},
    "modernbert": {"token": "classifier", "span": "classifier"},
    "eurobert": _CLASSIFIER,
    "nomic_bert": _CLASSIFIER,
    **{name: _SPAN for name in ("opt", "gptj")},
    **{
        name: _SCORE
        for name in ("gemma", "stablelm", "phi3", "phi", "starcoder2", "glm", "glm4", "helium")
    },
    "gemma2": _SCORE,
    "gpt_oss": _SCORE,
    "t5": _CLASSIFIER,
    "mt5": _CLASSIFIER,
    "umt5": _CLASSIFIER,
}
_TRANSFORMER_SPANS = (
    *("llama", "qwen2", "qwen3", "qwen3_moe"),
    *("arcee", "seed_oss", "smollm3", "exaone4", "ministral"),
)
# The prefix of the body's names in such a class, if it differs from the family's.
_PREFIXES: dict[str, dict[str, str]] = {
    **{name: {"span": "transformer."} for name in _TRANSFORMER_SPANS},
    **{name: {"token": "transformer."} for name in ("t5", "mt5", "umt5")},
}


def _with_token_heads(name: str, family: Family) -> Family:
    return with_token_heads(family, **_TOKEN_HEADS.get(name, {}), prefixes=_PREFIXES.get(name))


FAMILIES: Registry[Family] = Registry(
    {
        "bert": "hub.families.bert:BERT",
        "ernie": "hub.families.bert:ERNIE",
        "roberta": "hub.families.roberta:ROBERTA",
        "xlm-roberta": "hub.families.roberta:XLM_ROBERTA",
        "camembert": "hub.families.roberta:CAMEMBERT",
        "data2vec-text": "hub.families.roberta:DATA2VEC_TEXT",
        "mpnet": "hub.families.mpnet:MPNET",
        "albert": "hub.families.albert:ALBERT",
        "nomic_bert": "hub.families.nomic_bert:NOMIC_BERT",
        "distilbert": "hub.families.distilbert:DISTILBERT",
        "deberta": "hub.families.deberta:DEBERTA",
        "deberta-v2": "hub.families.deberta:DEBERTA_V2",
        "electra": "hub.families.electra:ELECTRA",
        "modernbert": "hub.families.modernbert:MODERNBERT",
        "eurobert": "hub.families.eurobert:EUROBERT",
        "openai-gpt": "hub.families.gpt2:OPENAI_GPT",
        "gpt2": "hub.families.gpt2:GPT2",
        "gpt_neo": "hub.families.gpt_neo:GPT_NEO",
        "gpt_neox": "hub.families.gpt_neox:GPT_NEOX",
        "gpt_bigcode": "hub.families.gpt2:GPT_BIGCODE",
        "opt": "hub.families.opt:OPT",
        "bloom": "hub.families.bloom:BLOOM",
        "gptj": "hub.families.gptj:GPTJ",
        "phi": "hub.families.phi:PHI",
        "falcon": "hub.families.falcon:FALCON",
        "starcoder2": "hub.families.starcoder2:STARCODER2",
        "llama": "hub.families.llama:LLAMA",
        "mistral": "hub.families.llama:MISTRAL",
        "ministral": "hub.families.ministral:MINISTRAL",
        "ministral3": "hub.families.ministral:MINISTRAL3",
        "helium": "hub.families.interleaved:HELIUM",
        "ernie4_5": "hub.families.interleaved:ERNIE",
        "arcee": "hub.families.arcee:ARCEE",
        "seed_oss": "hub.families.seed_oss:SEED_OSS",
        "qwen2": "hub.families.qwen:QWEN2",
        "qwen3": "hub.families.qwen:QWEN3",
        "smollm3": "hub.families.smollm3:SMOLLM3",
        "granite": "hub.families.granite:GRANITE",
        "olmo2": "hub.families.olmo:OLMO2",
        "olmo3": "hub.families.olmo:OLMO3",
        "phi3": "hub.families.phi3:PHI3",
        "stablelm": "hub.families.stablelm:STABLELM",
        "cohere": "hub.families.cohere:COHERE",
        "cohere2": "hub.families.cohere:COHERE2",
        "glm": "hub.families.glm:GLM",
        "glm4": "hub.families.glm:GLM4",
        "exaone4": "hub.families.exaone4:EXAONE4",
        "mixtral": "hub.families.mixture:MIXTRAL",
        "qwen2_moe": "hub.families.mixture:QWEN2_MOE",
        "qwen3_moe": "hub.families.mixture:QWEN3_MOE",
        "gpt_oss": "hub.families.gpt_oss:GPT_OSS",
        "gemma": "hub.families.gemma:GEMMA",
        "gemma2": "hub.families.gemma:GEMMA2",
        "gemma3_text": "hub.families.gemma:GEMMA3",
        "nanochat": "hub.families.nanochat:NANOCHAT",
        "t5": "hub.families.t5:T5",
        "mt5": "hub.families.t5:MT5",
        "umt5": "hub.families.t5:UMT5",
        "bart": "hub.families.bart:BART",
        "mbart": "hub.families.bart:MBART",
        "pegasus": "hub.families.pegasus:PEGASUS",
        "m2m_100": "hub.families.m2m100:M2M100",
        "marian": "hub.families.marian:MARIAN",
    },
    _with_token_heads,
)
