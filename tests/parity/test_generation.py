"""What a model's generation config says of how it writes is kept to, as `transformers` keeps to
it."""

import json
import warnings

import pytest
import torch

from langue.cli import run
from langue.errors import LangueWarning, ModelError
from langue.generation.sample import sampling_of
from langue.hub.generation_config import HARMLESS, NOT_FOLLOWED, GenerationConfig, read_generation
from langue.runs.model import load

transformers = pytest.importorskip("transformers")

from tests.contract.references import draw_model  # noqa: E402
from tests.contract.test_families import save, saved  # noqa: E402

PROMPTS = [[5, 9, 30, 41, 9, 30], [7, 7, 21], [8]]
END = [2, 50]
# Of each, what it changes is checked to be something.
RULES = {
    "repetition penalty": {"repetition_penalty": 1.7},
    "a penalty below one": {"repetition_penalty": 0.6},
    "no token twice": {"no_repeat_ngram_size": 1},
    "no pair twice": {"no_repeat_ngram_size": 2},
    "no triple twice": {"no_repeat_ngram_size": 3},
    "least new tokens": {"min_new_tokens": 7},
    "least length": {"min_length": 9},
    "a forced end": {"forced_eos_token_id": 2},
    "several forced ends": {"forced_eos_token_id": [40, 41]},
    "a forced begin": {"forced_bos_token_id": 33},
    "new tokens": {"max_new_tokens": 4},
    "length": {"max_length": 9},
    "all": {
        **{"repetition_penalty": 1.3, "no_repeat_ngram_size": 3, "min_length": 5, "max_length": 14},
        **{"forced_bos_token_id": 33, "forced_eos_token_id": 2},
    },
}


def theirs(model, prompt, **words):
    ids = model.generate(torch.tensor([prompt]), **words)[0].tolist()
    made = ids[1:] if model.config.is_encoder_decoder else ids[len(prompt) :]
    ends = [place for place, token in enumerate(made) if token in END]
    return made[: ends[0]] if ends else made


def folder_of(tmp_path, reference, rules, where="generation"):
    """As older folders have it, what it says of generation is in config.json."""
    plain = {"eos_token_id": END, "pad_token_id": 1, "bos_token_id": 0}
    reference.generation_config = transformers.GenerationConfig(**plain, **rules)
    if reference.config.is_encoder_decoder:
        reference.generation_config.decoder_start_token_id = 1
    folder = tmp_path / where
    if folder.is_dir():  # its weights are there
        reference.generation_config.save_pretrained(folder)
    else:
        save(folder, reference)
    if where == "config":
        said = json.loads((folder / "generation_config.json").read_text())
        (folder / "generation_config.json").unlink()
        config = json.loads((folder / "config.json").read_text())
        (folder / "config.json").write_text(json.dumps(config | said))
    return folder


@pytest.mark.parametrize("name", ["gpt2", "llama", "bart", "t5"])
def test_every_rule_is_followed_token_for_token(tmp_path, name):
    reference = draw_model(name, 2, std=0.5)
    reference.config.decoder_start_token_id = 1
    words = {"max_new_tokens": 12, "num_beams": 1, "do_sample": False}
    folder_of(tmp_path, reference, {})
    free = [theirs(reference, prompt, **words) for prompt in PROMPTS]
    often = max(
        {t for made in free for t in made}, key=lambda t: sum(made.count(t) for made in free)
    )
    first = free[0][0]
    rules = RULES | {
        "biases": {"sequence_bias": [[[often], -4.0], [[first, 33], 20.0], [[40], 3.0]]},
        "words": {"bad_words_ids": [[often], [first, free[0][1]], END[:1]]},
        "suppressed": {"suppress_tokens": [often, first]},
        "suppressed at first": {"begin_suppress_tokens": [first]},
        "suppressed after a forced begin": {
            "begin_suppress_tokens": [first, often],
            "forced_bos_token_id": 33,
        },
    }
    changed = 0
    for said in rules.values():
        folder = folder_of(tmp_path, reference, said)
        given = {} if {"max_length", "max_new_tokens"} & said.keys() else {"max_tokens": 12}
        ours = load(folder).generate(PROMPTS, **given)
        expected = [theirs(reference, prompt, **({} if not given else words)) for prompt in PROMPTS]
        assert ours == expected, said
        changed += ours != free
    assert changed >= len(rules) - 3  # a model may want nothing of what is forbidden


@pytest.mark.parametrize("name", ["llama", "bart"])
def test_what_config_json_says_in_older_folders_and_what_is_saved(tmp_path, name):
    reference = draw_model(name, 2, std=0.5)
    reference.config.decoder_start_token_id = 1
    said = {
        "repetition_penalty": 1.7,
        "no_repeat_ngram_size": 2,
        "max_length": 11,
        "forced_eos_token_id": 2,
    }
    new = load(folder_of(tmp_path, reference, said)).generate(PROMPTS)
    model = load(folder_of(tmp_path, reference, said, "config"))
    assert model.generate(PROMPTS) == new
    model.save(tmp_path / "again")
    assert load(tmp_path / "again").generate(PROMPTS) == new
    again = type(reference).from_pretrained(tmp_path / "again").eval()
    assert [theirs(again, prompt) for prompt in PROMPTS] == new
    old = folder_of(tmp_path, reference, {}, "config")
    config = json.loads((old / "config.json").read_text())
    # every old config says so
    (old / "config.json").write_text(json.dumps(config | {"max_length": 20}))
    assert load(old).checkpoint.generation.max_length is None


def test_arguments_win_and_what_is_not_given_is_the_models(tmp_path):
    greedy = GenerationConfig()
    drawn = GenerationConfig(do_sample=True, temperature=0.6, top_p=0.9)
    named = GenerationConfig(do_sample=True, temperature=0.6, top_k=20, top_p=0.8)
    none = (None, None, None, None, 0)

    def found(config, *given):
        made = sampling_of(config, *given)
        return made.max_tokens, made.temperature, made.top_k, made.top_p

    assert found(greedy, *none) == (None, 0.0, 0, 1.0)
    assert found(drawn, *none) == (None, 0.6, 50, 0.9)  # 50 is what transformers takes for none
    assert found(named, *none) == (None, 0.6, 20, 0.8)
    assert found(named, 5, 0.0, 0, 1.0, 1) == (5, 0.0, 0, 1.0)
    assert found(named, None, 1.0, None, None, 1) == (None, 1.0, 20, 0.8)
    assert found(greedy, None, 1.0, None, None, 1) == (None, 1.0, 0, 1.0)
    assert [greedy.new_tokens(9), GenerationConfig(max_length=12).new_tokens(9)] == [64, 3]
    reference = draw_model("llama", 2, std=0.5)
    model = load(
        folder_of(
            tmp_path,
            reference,
            {"do_sample": True, "temperature": 0.9, "top_k": 3, "max_length": 6},
        )
    )
    with pytest.raises(ModelError, match="6 tokens.*max_length = 6.*; give max_tokens, or shorten"):
        model.generate(PROMPTS)
    assert model.generate(PROMPTS, max_tokens=5) == model.generate(PROMPTS, 5, 0.9, 3, 1.0)
    assert model.generate(PROMPTS, 5, seed=1) != model.generate(PROMPTS, 5, seed=2)
    drawn = [model.generate([[8], [7, 7, 21]], seed=seed) for seed in range(4)]
    assert [max(map(len, made)) for made in zip(*drawn, strict=True)] == [5, 3]


def test_what_is_not_followed_is_said_once(tmp_path, capsys):
    words = {"guidance_scale": 4, "use_cache": True, "a_key": 7, "typical_p": 1.0}
    folder = saved(tmp_path / "m", "llama", 0)
    written = json.loads((folder / "generation_config.json").read_text())
    (folder / "generation_config.json").write_text(json.dumps(written | words))
    model = load(folder)
    with pytest.warns(
        LangueWarning, match="says guidance_scale = 4, a_key = 7, which is not followed here"
    ):
        model.generate([[5]], max_tokens=1)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        model.generate([[5]], max_tokens=1)
    assert run(["generate", str(folder), "--prompt", "w5", "--max-tokens", "1"]) == 0
    said = capsys.readouterr().err.splitlines()
    assert [line for line in said if "guidance_scale" in line][0].startswith("langue: warning: ")


def test_every_key_of_the_reference_is_known():
    """A key that transformers adds is to be followed, or listed as what is not."""
    from langue.hub.generation_config import FOLLOWED, SPECIAL

    known = {*FOLLOWED, *SPECIAL, *NOT_FOLLOWED, *HARMLESS}
    assert not {*transformers.GenerationConfig().to_dict()} - known
    plain = transformers.GenerationConfig()._get_default_generation_params()
    assert {
        key
        for key in NOT_FOLLOWED
        if plain.get(key, NOT_FOLLOWED[key]) not in (None, NOT_FOLLOWED[key])
    } == set()


@pytest.mark.parametrize(
    ("key", "value"),
    [
        *[
            ("temperature", "hot"),
            ("temperature", -1),
            ("top_p", 2.0),
            ("top_k", 2.5),
            ("do_sample", "yes"),
        ],
        *[
            ("max_length", 0),
            ("max_new_tokens", True),
            ("repetition_penalty", 0.0),
            ("no_repeat_ngram_size", -1),
        ],
        *[
            ("bad_words_ids", [5]),
            ("bad_words_ids", [[]]),
            ("suppress_tokens", ["a"]),
            ("eos_token_id", [2, "a"]),
        ],
        *[
            ("min_p", 1.5),
            ("typical_p", 0),
            ("epsilon_cutoff", -0.1),
            ("sequence_bias", {"5": 1.0}),
            ("sequence_bias", [[5, 1.0]]),
            ("sequence_bias", [[[5], "1"]]),
            ("sequence_bias", [[[], 1.0]]),
        ],
        *[("forced_bos_token_id", 999), ("forced_eos_token_id", [2, 999])],
    ],
)
def test_a_value_that_cannot_be_followed_is_an_error_that_names_it(key, value):
    with pytest.raises(ModelError, match=f"file: {key} = .* is not .*; correct it, or take it out"):
        read_generation({key: value}, {}, 61, "file")


def test_a_model_that_may_write_nothing_says_so(tmp_path):
    folder = folder_of(tmp_path, draw_model("llama", 0), {"suppress_tokens": list(range(61))})
    with pytest.raises(ModelError, match="suppress_tokens forbid every token"):
        load(folder).generate([[5]])
