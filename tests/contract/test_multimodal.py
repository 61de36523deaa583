"""Models of texts and images: langue reads their text side with the reference's logits, and says
that it reads nothing else."""

import json

import pytest
import torch
import transformers
from safetensors.torch import load_file, save_file

from langue.errors import LangueWarning
from langue.runs.model import load
from tests.contract.references import VOCABULARY, scattered
from tests.contract.test_families import close, save, sequences

TEXT = {
    "vocab_size": VOCABULARY,
    "hidden_size": 32,
    "intermediate_size": 40,
    "num_hidden_layers": 4,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "head_dim": 8,
    "max_position_embeddings": 64,
    "rms_norm_eps": 1e-5,
}
GEMMA = TEXT | {
    "model_type": "gemma3_text",
    "sliding_window": 6,
    "sliding_window_pattern": 2,
    "query_pre_attn_scalar": 8,
    "rope_scaling": {"factor": 8.0, "rope_type": "linear"},
}
MROPE = {"type": "mrope", "mrope_section": [1, 1, 2]}
INTERLEAVED = {"rope_type": "default", "mrope_interleaved": True, "mrope_section": [1, 1, 2]}
QWEN = {key: value for key, value in TEXT.items() if key != "head_dim"}
QWEN3 = TEXT | {"model_type": "qwen3_vl_text", "rope_scaling": INTERLEAVED}
SIGLIP = {
    "hidden_size": 16,
    "intermediate_size": 24,
    "num_hidden_layers": 1,
    "num_attention_heads": 2,
    "image_size": 28,
    "patch_size": 14,
}
PIXTRAL = SIGLIP | {"head_dim": 8, "model_type": "pixtral"}
PATCHES = {"depth": 1, "num_heads": 2, "out_hidden_size": 32}
# the class of the reference and its config, whose other parts are beside `text_config`, or replace
# it
MODELS = {
    "gemma-3-4b-it": (
        "Gemma3ForConditionalGeneration",
        {"text_config": GEMMA, "vision_config": SIGLIP, "mm_tokens_per_image": 4},
    ),
    "Mistral-Small-3.1": (
        "Mistral3ForConditionalGeneration",
        {"text_config": TEXT | {"model_type": "mistral"}, "vision_config": PIXTRAL},
    ),
    "Qwen2-VL": (
        "Qwen2VLForConditionalGeneration",
        {
            "text_config": QWEN | {"rope_scaling": MROPE},
            "vision_config": {"depth": 1, "num_heads": 2, "embed_dim": 16, "hidden_size": 32},
            "tie_word_embeddings": True,
        },
    ),
    "Qwen2.5-VL": (
        "Qwen2_5_VLForConditionalGeneration",
        {
            "text_config": QWEN | {"rope_scaling": MROPE},
            "vision_config": PATCHES | {"hidden_size": 16, "intermediate_size": 24},
            "tie_word_embeddings": False,
        },
    ),
    "Qwen3-VL": (
        "Qwen3VLForConditionalGeneration",
        {
            "text_config": QWEN3,
            "vision_config": PATCHES
            | {"hidden_size": 16, "intermediate_size": 24, "deepstack_visual_indexes": [0]},
        },
    ),
}
# As in the folders on the Hub: all keys at the top level, or the names of the first releases.
HUB = {
    "Qwen2-VL": lambda config: config.pop("text_config") | config,
    "Qwen2.5-VL": lambda config: config.pop("text_config") | config,
}


@pytest.mark.parametrize("old", [False, True])
@pytest.mark.parametrize("name", MODELS)
def test_the_text_side_has_the_references_logits(tmp_path, name, old):
    stem, said = MODELS[name]
    made = getattr(transformers, stem)
    config = made.config_class(**said)
    config._attn_implementation = "eager"
    reference = scattered(lambda: made(config), 0)
    folder = save(tmp_path / "m", reference)
    if old:
        written = {"model_type": config.model_type, "architectures": [stem], **said}
        written = HUB.get(name, lambda same: same)(json.loads(json.dumps(written)))
        (folder / "config.json").write_text(json.dumps(written))
    else:  # the names of the class itself, which some folders use
        weights = {n: t.clone() for n, t in reference.state_dict().items()}
        save_file(weights, folder / "model.safetensors", {"format": "pt"})
    with pytest.warns(LangueWarning, match="weights for images are skipped"):
        model = load(folder)
    ids = sequences(0)
    ours = model.logits(ids)
    with torch.no_grad():
        for mine, each in zip(ours, ids, strict=True):
            assert close(mine, reference(input_ids=torch.tensor([each])).logits[0].numpy())
    model.save(tmp_path / "text")  # as a separate language model
    again = transformers.AutoModelForCausalLM.from_pretrained(tmp_path / "text").eval()
    assert not any("vis" in key for key in load_file(tmp_path / "text" / "model.safetensors"))
    with torch.no_grad():
        for mine, each in zip(ours, ids, strict=True):
            assert close(mine, again(torch.tensor([each])).logits[0].numpy())
