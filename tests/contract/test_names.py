"""Values under several names: tied tables in files and indexes, and aliases in configs, for every
family."""

import json

import pytest
import torch
import transformers
from safetensors.torch import load_file, save_file

from langue.errors import ModelError
from langue.hub.families.registry import FAMILIES
from langue.runs.model import load
from tests.contract.references import REFERENCES, draw_config, draw_model
from tests.contract.test_families import close, inputs, save, theirs

every_family = pytest.mark.parametrize("name", FAMILIES)


def draw_tied(name, tied=True):
    """Return the first reference model of the family whose config ties its tables, or does not."""
    for seed in range(30):
        config = draw_config(name, seed)
        # Version 5 of transformers ties those of T5 whatever its config says.
        if name in ("t5", "mt5", "umt5") or config.tie_word_embeddings == tied:
            return draw_model(name, seed)
        if not hasattr(config, "tie_word_embeddings"):
            break
    raise AssertionError(f"no config of {name} with tie_word_embeddings = {tied}")


# Version 5 of transformers uses another name in memory than in the files that it reads and writes.
IN_FILES = {"gpt_neox": {"lm_head.weight": "embed_out.weight"}}


def tied(name, folder, model):
    """Return the reference's groups of names that share a tensor, and its saved weights under all
    of their names."""
    groups = {}
    for key, tensor in model.state_dict(keep_vars=True).items():
        groups.setdefault(tensor.data_ptr(), []).append(IN_FILES.get(name, {}).get(key, key))
    weights = load_file(folder / "model.safetensors")
    shared = [names for names in groups.values() if len(names) > 1 and {*names} & weights.keys()]
    for names in shared:
        names.sort(key=lambda key: key not in weights)  # the name in the file first
        saved = names[0]
        weights |= {key: weights[saved].clone() for key in names}
    return shared, weights


def write_shards(folder, weights, listed, suffix):
    """Write the weights in two files, and an index that lists the names `listed`."""
    (folder / "model.safetensors").unlink(missing_ok=True)
    stem = "model" if suffix == "safetensors" else "pytorch_model"
    names = sorted(weights)
    places = {}
    for number, part in enumerate((names[::2], names[1::2]), 1):
        file = f"{stem}-{number:05d}-of-00002.{suffix}"
        tensors = {name: weights[name].clone() for name in part}
        if suffix == "bin":
            torch.save(tensors, folder / file)
        else:
            save_file(tensors, folder / file, {"format": "pt"})
        places |= dict.fromkeys(part, file)
    index = {"weight_map": {name: places.get(name, places[names[0]]) for name in listed}}
    (folder / f"{stem}.{suffix}.index.json").write_text(json.dumps(index))


def write_one(folder, weights, suffix):
    (folder / "model.safetensors").unlink(missing_ok=True)
    if suffix == "bin":
        torch.save(
            {name: tensor.clone() for name, tensor in weights.items()}, folder / "pytorch_model.bin"
        )
    else:
        save_file(
            {name: t.clone() for name, t in weights.items()},
            folder / "model.safetensors",
            {"format": "pt"},
        )


# Families that together have every kind of tie group: of two names, with a bias beside, of four
# names, and with a name that differs in memory.
OTHER_FORMS = ("bert", "gpt2", "gpt_neox", "t5", "bart", "marian", "m2m_100")


def forms(name, members, kept):
    """Yield the possible forms on the Hub of a file with one member of a tie group, or all of them
    (None). Reading does not depend on the family, so most families have one form here.
    """
    yield "safetensors", lambda folder, weights: write_one(folder, weights, "safetensors")
    if name not in OTHER_FORMS:
        return
    if kept == members[-1]:
        more = members  # an index that lists names missing in its files
        yield "bin", lambda folder, weights: write_one(folder, weights, "bin")
        yield "sharded bin", lambda folder, weights: write_shards(folder, weights, weights, "bin")
        yield (
            "sharded",
            lambda folder, weights: write_shards(folder, weights, {*weights, *more}, "safetensors"),
        )
    if kept is None:
        unlisted = {*members[1:]}
        yield (
            "sharded",
            lambda folder, weights: write_shards(
                folder, weights, {*weights} - unlisted, "safetensors"
            ),
        )


@every_family
def test_any_member_of_a_tie_group_gives_the_table(tmp_path, name):
    reference = draw_tied(name)
    folder = save(tmp_path / "m", reference)
    ids = inputs(reference, 0)
    with torch.no_grad():
        expected = [each.numpy() for each in theirs(reference, *ids)]
    groups, whole = tied(name, folder, reference)
    assert groups
    for members in groups:
        for kept in [*members, None]:  # None: all of them
            weights = {
                key: t for key, t in whole.items() if kept in (None, key) or key not in members
            }
            for form, write in forms(name, members, kept):
                for old in folder.glob("*model*"):
                    old.unlink()
                write(folder, weights)
                model = load(folder)
                for mine, each in zip(model.logits(*ids), expected, strict=True):
                    assert close(mine, each), (kept, form)
    # a modified table is saved as it is, without a stale copy beside it
    model.body.token.weight.data.mul_(1.5)
    model.save(tmp_path / "changed")
    for mine, other in zip(
        model.logits(*ids), load(tmp_path / "changed").logits(*ids), strict=True
    ):
        assert close(mine, other)


@every_family
def test_members_of_a_tie_group_that_differ_are_named_or_apart(tmp_path, name):
    """An output matrix with different values is untied; if any other two differ, neither can be
    chosen."""
    reference = draw_tied(name)
    folder = save(tmp_path / "m", reference)
    output = FAMILIES[name].output
    groups, whole = tied(name, folder, reference)
    for members in groups:
        for odd in members[1:]:
            save_file(whole | {odd: 3 * whole[odd]}, folder / "model.safetensors", {"format": "pt"})
            if odd == output:
                assert not load(folder).config.tied
                continue
            with pytest.raises(
                ModelError, match="one tensor in this model, and the file's two copies differ"
            ) as error:
                load(folder)
            assert odd in str(error.value)


def test_tables_apart_of_which_the_file_has_the_shared_one(tmp_path):
    """transformers 4 saves one table for BART's encoder and decoder, and a separate output
    matrix."""
    reference = draw_tied("bart", tied=False)
    shared = reference.model.shared.weight.data
    reference.model.encoder.embed_tokens.weight.data.copy_(shared)
    reference.model.decoder.embed_tokens.weight.data.copy_(shared)
    folder = save(tmp_path / "m", reference)
    weights = {
        key: t
        for key, t in load_file(folder / "model.safetensors").items()
        if "embed_tokens" not in key
    }
    assert {"model.shared.weight", "lm_head.weight"} <= weights.keys()
    save_file(weights, folder / "model.safetensors", {"format": "pt"})
    model = load(folder)
    ids = inputs(reference, 0)
    with torch.no_grad():
        for mine, each in zip(model.logits(*ids), theirs(reference, *ids), strict=True):
            assert close(mine, each.numpy())
    model.body.token.weight.data.mul_(2)  # the two tables are independent
    assert torch.equal(model.body.decoder.token.weight, shared)
    model.save(tmp_path / "again")
    assert "model.shared.weight" not in load_file(tmp_path / "again" / "model.safetensors")


# What a published class accepts besides its attribute_map: BLOOM's old name, and the attribute_map
# of version 4.
MORE_ALIASES = {
    "bloom": {"n_embed": "hidden_size"},
    "modernbert": {"rope_theta": "global_rope_theta"},
    "qwen3_moe": {"num_local_experts": "num_experts"},
}
# Aliases that do not refer to a text model.
OF_IMAGES = {"image_token_id", "boi_token_id", "eoi_token_id"}


@every_family
def test_every_alias_of_the_references_configs_is_read(name):
    made = getattr(transformers, REFERENCES[name][0])
    own = json.loads(draw_config(name, 3).to_json_string(use_diff=False))
    own |= {"rope_parameters": None, "global_rope_theta": 300.0} if name == "modernbert" else {}
    expected = FAMILIES[name].read(own)
    aliases = {
        a: o for a, o in made.attribute_map.items() if a not in OF_IMAGES
    } | MORE_ALIASES.get(name, {})
    # configs of version 5 have the other name, those on the Hub this one
    if name == "qwen3_moe":
        own["num_experts"] = own.pop("num_local_experts")
        aliases = MORE_ALIASES[name]
    for alias, usual in aliases.items():
        renamed = {key: value for key, value in own.items() if key != usual} | {alias: own[usual]}
        assert FAMILIES[name].read(renamed) == expected, alias
        if usual != "global_rope_theta":  # version 4 only
            theirs_ = json.loads(made.from_dict(renamed).to_json_string(use_diff=False))
            assert FAMILIES[name].read(theirs_) == expected, alias
        assert FAMILIES[name].read({**own, alias: own[usual]}) == expected
        with pytest.raises(
            ModelError, match=f"{usual} = .* and {alias} = .* are two names of one value"
        ):
            FAMILIES[name].read({**own, alias: own[usual] + 1})


def test_the_published_bloom_config():
    """The config of bigscience/bloom-560m."""
    said = {
        "model_type": "bloom",
        "apply_residual_connection_post_layernorm": False,
        "n_embed": 1024,
        "n_layer": 24,
        "num_attention_heads": 16,
        "n_inner": None,
        "offset_alibi": 100,
        "seq_length": 2048,
        "skip_bias_add": True,
        "skip_bias_add_qkv": False,
        "slow_but_exact": False,
        "vocab_size": 250880,
    }
    config = FAMILIES["bloom"].read(said)
    assert (config.dim, config.n_layers, config.n_heads, config.ffn_dim) == (1024, 24, 16, 4096)
