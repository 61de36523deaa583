"""What we save, held against what vLLM reads (its loader's rules, version 0.33.0 of November 2026):
the architecture that `config.json` names, weights by their published names, the tokenizer, the
chat template and the generation config. vLLM itself needs a GPU and is not run.
"""

import json

import pytest
import torch
import transformers
from safetensors import safe_open

import langue
from langue.hub.checkpoint import write_checkpoint
from langue.hub.families.registry import FAMILIES
from langue.model.language_model import LanguageModel
from langue.model.transformer import initialise
from tests.contract.references import REFERENCES, draw_config
from tests.serve.serving import CHAT
from tests.tiny_tokenizer import byte_tokenizer

# the architectures of `vllm/model_executor/models/registry.py`, among ours
OWN = {
    *("BloomForCausalLM", "Cohere2ForCausalLM", "CohereForCausalLM", "Ernie4_5ForCausalLM"),
    *("Exaone4ForCausalLM", "FalconForCausalLM", "GPT2LMHeadModel", "GPTJForCausalLM"),
    *("Gemma2ForCausalLM", "Gemma3ForCausalLM", "GemmaForCausalLM", "Glm4ForCausalLM"),
    *("GptOssForCausalLM", "GraniteForCausalLM", "LlamaForCausalLM", "Ministral3ForCausalLM"),
    *("MistralForCausalLM", "MixtralForCausalLM", "OPTForCausalLM", "Phi3ForCausalLM"),
    *("Qwen2ForCausalLM", "Qwen2MoeForCausalLM", "Qwen3ForCausalLM", "Qwen3MoeForCausalLM"),
    "StableLmForCausalLM",
}
# listed too, and run by the modules of `transformers` inside vLLM
BY_TRANSFORMERS = {
    *("ArceeForCausalLM", "GPTBigCodeForCausalLM", "GPTNeoXForCausalLM", "GlmForCausalLM"),
    *("Olmo2ForCausalLM", "Olmo3ForCausalLM", "PhiForCausalLM", "SeedOssForCausalLM"),
    *("SmolLM3ForCausalLM", "Starcoder2ForCausalLM"),
}
# not listed: vLLM then tries the modules of `transformers`, and may refuse
NOT_LISTED = {
    *("GPTNeoForCausalLM", "HeliumForCausalLM", "MinistralForCausalLM", "NanoChatForCausalLM"),
    "OpenAIGPTLMHeadModel",
}
DECODERS = [
    name
    for name in REFERENCES
    if FAMILIES[name].read(draw_config(name, 0).to_dict()).architecture == "decoder"
]
TALK = [{"role": "user", "content": "hello"}]


def test_every_decoder_is_listed_or_named_as_not() -> None:
    known = {FAMILIES[name].architectures["lm"] for name in DECODERS}
    assert known == OWN | BY_TRANSFORMERS | NOT_LISTED


@pytest.mark.parametrize("name", DECODERS)
def test_a_saved_decoder_has_the_layout_that_vllm_reads(tmp_path, name) -> None:
    family = FAMILIES[name]
    tokenizer = byte_tokenizer()
    drawn = draw_config(name, 1).to_dict()
    published = drawn | {
        "vocab_size": tokenizer.backend.get_vocab_size(),
        "bos_token_id": 0,
        "eos_token_id": 0,
    }
    config = family.read(published)
    model = LanguageModel(config)
    initialise(model, 0.1, 0)
    made = tmp_path / "made"
    made.mkdir()
    write_checkpoint(
        made,
        family=family,
        config=config,
        weights=dict(model.named_parameters()),
        tokenizer=tokenizer.with_chat_template(CHAT),
        head="lm",
        published=published,
    )
    saved = tmp_path / "saved"
    langue.load(made).save(saved)
    told = json.loads((saved / "config.json").read_text())
    assert told["architectures"] == [family.architectures["lm"]]
    assert told["model_type"] == name and "auto_map" not in told
    # each safetensors file is read, and where there is an index, only those that it names
    files = sorted(saved.glob("*.safetensors"))
    assert files and not list(saved.glob("*.bin"))
    names = set()
    for file in files:
        with safe_open(file, "pt") as opened:
            names |= set(opened.keys())
            kinds = {opened.get_tensor(each).dtype for each in opened.keys()}  # noqa: SIM118
    # `auto` holds weights in what the config says
    said = told.get("dtype", told.get("torch_dtype"))
    assert {str(kind).removeprefix("torch.") for kind in kinds} == {said}
    reader = getattr(transformers, REFERENCES[name][1])
    with torch.device("meta"):
        reference = reader(transformers.AutoConfig.from_pretrained(saved))
    tied = set(getattr(reference, "_tied_weights_keys", None) or {})
    expected = _published_names(saved, reader)
    assert names <= expected, names - expected
    assert {each for each in expected - names if each not in tied} == set()
    theirs = transformers.AutoTokenizer.from_pretrained(saved)
    text = theirs.apply_chat_template(TALK, tokenize=False, add_generation_prompt=True)
    assert text == langue.load(saved).tokenizer.chat(TALK)
    assert theirs("the ball").input_ids == tokenizer.backend.encode("the ball").ids
    ends = transformers.GenerationConfig.from_pretrained(saved).eos_token_id
    assert ends == 0 or ends == [0]


def _published_names(folder, reader) -> set[str]:
    """The names that the reference's own files have, which vLLM's modules map from."""
    model, loading = reader.from_pretrained(folder, output_loading_info=True)
    assert not loading["missing_keys"] and not loading["unexpected_keys"]
    again = folder.parent / "again"
    model.save_pretrained(again)
    with safe_open(again / "model.safetensors", "pt") as opened:
        return set(opened.keys())
