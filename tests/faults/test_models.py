"""Damaged, foreign and hostile model folders: one clear line each, nothing half-written, nothing
run."""

import json
import pickle
import re
import resource
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from langue.errors import ModelError, RunError
from langue.files import atomic_file, atomic_folder
from langue.runs.model import load
from tests import forked
from tests.tiny import tiny_bert


@pytest.fixture
def model(tmp_path):
    return tiny_bert(tmp_path / "model")


def edit(model, **changes):
    file = model / "config.json"
    file.write_text(json.dumps(json.loads(file.read_text()) | changes))


def refuses(model, match):
    with pytest.raises(ModelError, match=match) as caught:
        load(model)
    assert str(model) in str(caught.value) and "\n" not in str(caught.value)


@pytest.mark.parametrize("keep", [0, 4, 100, 0.5, 0.999])
def test_a_safetensors_file_cut_short(model, keep):
    file = model / "model.safetensors"
    whole = file.read_bytes()
    file.write_bytes(whole[: int(keep * len(whole)) if isinstance(keep, float) else keep])
    refuses(model, "not a whole safetensors file.*download or save it again")


def test_a_header_that_claims_terabytes(model):
    (model / "model.safetensors").write_bytes((1 << 40).to_bytes(8, "little") + b"{}")
    refuses(model, "not a whole safetensors file")


def test_wrong_shapes(model):
    file = model / "model.safetensors"
    weights = load_file(file)
    weights["embeddings.LayerNorm.weight"] = torch.ones(7)
    save_file(weights, file)
    refuses(model, r"embedding_norm.weight has shape \[7\] and the config asks for \[32\]")


@pytest.mark.parametrize("shape", [(32, 1), (1, 32), (32,), (), (0, 32), (31, 32)])
@pytest.mark.parametrize("part", ["query", "key", "value"])
def test_parts_that_do_not_go_together(model, part, shape):
    """A column is not spread over the width of the others."""
    file = model / "model.safetensors"
    weights = load_file(file)
    name = f"encoder.layer.0.attention.self.{part}.weight"
    weights[name] = torch.ones(shape)
    save_file(weights, file)
    refuses(model, rf"qkv.weight cannot be made of .*{name} of shape {re.escape(str([*shape]))}")


def test_queries_and_keys_of_each_others_sizes(model):
    file = model / "model.safetensors"
    weights = load_file(file)
    names = [f"encoder.layer.0.attention.self.{part}.weight" for part in ("query", "key")]
    weights |= {name: torch.ones(rows, 32) for name, rows in zip(names, (16, 48), strict=True)}
    save_file(weights, file)
    refuses(model, "qkv.weight cannot be made of")


def test_a_missing_and_a_left_over_weight(model):
    file = model / "model.safetensors"
    weights = load_file(file)
    weights["encoder.layer.0.output.dense.wait"] = weights.pop(
        "encoder.layer.0.output.dense.weight"
    )
    save_file(weights, file)
    refuses(
        model, "weights missing: encoder.layer.0.output.dense.weight; weights left over: .*wait"
    )


def test_no_tokenizer(model):
    for name in ("tokenizer.json", "vocab.txt"):
        (model / name).unlink()
    refuses(model, "has no tokenizer; put its tokenizer.json")


def test_a_damaged_tokenizer(model):
    (model / "tokenizer.json").write_text(
        '{"version": "1.0", "model": {"type": "WordPiece", "vocab": [}}'
    )
    refuses(model, "the tokenizer cannot be read")


def test_a_tokenizer_larger_than_the_embedding(model):
    words = (model / "vocab.txt").read_text() + "".join(f"more{i}\n" for i in range(300))
    (model / "tokenizer.json").unlink()
    (model / "vocab.txt").write_text(words)
    refuses(model, "the tokenizer has .* tokens and the model 200 embeddings")


def test_an_unknown_architecture_and_unknown_axes(model):
    edit(model, hidden_act="wave")
    refuses(model, 'hidden_act = "wave" is not supported')
    edit(model, model_type="bort")
    refuses(model, "model_type 'bort' is not known; known: .*bert")


def test_a_config_that_is_not_json(model):
    (model / "config.json").write_text('{"model_type": "bert",\n oops}')
    with pytest.raises(RunError, match="config.json, line 2: not JSON"):
        load(model)


def test_no_such_folder_and_an_empty_one(tmp_path):
    for name in (tmp_path / "nowhere", "~nobody-of-that-name/model"):
        with pytest.raises(ModelError, match="no such model folder"):
            load(name)
    (tmp_path / "empty").mkdir()
    refuses(tmp_path / "empty", "has no config.json")


@pytest.mark.parametrize("file", ["config.json", "tokenizer_config.json"])
def test_code_named_by_a_config_is_refused_and_never_run(model, tmp_path, file):
    marker = tmp_path / "ran"
    (model / "evil.py").write_text(f"open({str(marker)!r}, 'w')")
    said = json.loads((model / file).read_text()) if (model / file).is_file() else {}
    (model / file).write_text(
        json.dumps(
            said | {"auto_map": {"AutoModel": "evil.Evil", "AutoTokenizer": ["evil.E", None]}}
        )
    )
    refuses(
        model, f"{file}: auto_map names code that comes with the model, which langue never runs"
    )
    assert not marker.exists()


class Evil:
    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return (open, (self.path, "w"))


def test_a_pickle_that_runs_code_is_refused_and_not_run(model, tmp_path):
    marker = tmp_path / "ran"
    (model / "model.safetensors").unlink()
    (model / "pytorch_model.bin").write_bytes(
        pickle.dumps({"embeddings.word_embeddings.weight": Evil(str(marker))})
    )
    refuses(model, "this pickle is refused.*save_file")
    torch.save(
        {"embeddings.word_embeddings.weight": Evil(str(marker))}, model / "pytorch_model.bin"
    )
    refuses(model, "this pickle is refused")
    assert not marker.exists()


def test_the_advice_converts_a_pickle_that_is_trusted(model):
    before = load(model).hidden(["the film"])[0]
    weights = load_file(model / "model.safetensors")
    (model / "model.safetensors").unlink()
    names = list(weights)
    where = Path("trained/here")  # a path, which is more than plain tensors
    halves = {"1": names[: len(names) // 2], "2": names[len(names) // 2 :]}
    for number, part in halves.items():
        torch.save(
            {name: weights[name] for name in part} | {"saved": where},
            model / f"pytorch_model-{number}.bin",
        )
    places = {
        name: f"pytorch_model-{number}.bin" for number, part in halves.items() for name in part
    }
    (model / "pytorch_model.bin.index.json").write_text(json.dumps({"weight_map": places}))
    with pytest.raises(ModelError, match="this pickle is refused") as refused:
        load(model)
    advice = refused.value.do.partition(": ")[2]
    assert advice.startswith("python -c ")
    subprocess.run(advice.replace("python", sys.executable, 1), shell=True, check=True, cwd=model)
    assert (load(model).hidden(["the film"])[0] == before).all()


def test_a_clean_bin_is_taken(model):
    before = load(model).hidden(["the film"])[0]
    torch.save(load_file(model / "model.safetensors"), model / "pytorch_model.bin")
    (model / "model.safetensors").unlink()
    assert (load(model).hidden(["the film"])[0] == before).all()


def test_a_bin_that_would_swell_is_refused(model):
    """Packed parts, and one number shown as many."""
    (model / "model.safetensors").rename(model / "whole")
    weights = load_file(model / "whole")
    torch.save(weights, model / "plain.bin")
    with (
        zipfile.ZipFile(model / "plain.bin") as plain,
        zipfile.ZipFile(model / "pytorch_model.bin", "w", zipfile.ZIP_DEFLATED) as packed,
    ):
        for name in plain.namelist():
            packed.writestr(name, plain.read(name))
    refuses(model, "this pickle is refused")
    name = next(iter(weights))
    torch.save(weights | {name: torch.ones(1).expand(2**20, 2**20)}, model / "pytorch_model.bin")
    refuses(model, "more numbers than the file")


def test_shards_of_bins(model):
    before = load(model).hidden(["the film"])[0]
    weights = load_file(model / "model.safetensors")
    (model / "model.safetensors").unlink()
    names = sorted(weights)
    for shard, some in (("pytorch_model-1.bin", names[::2]), ("pytorch_model-2.bin", names[1::2])):
        torch.save({name: weights[name] for name in some}, model / shard)
    places = {name: f"pytorch_model-{1 + index % 2}.bin" for index, name in enumerate(names)}
    (model / "pytorch_model.bin.index.json").write_text(json.dumps({"weight_map": places}))
    assert (load(model).hidden(["the film"])[0] == before).all()


def test_an_index_that_leaves_the_folder(model):
    (model / "model.safetensors").rename(model.parent / "outside.safetensors")
    index = {"weight_map": {"a": "../outside.safetensors"}}
    (model / "model.safetensors.index.json").write_text(json.dumps(index))
    refuses(model.resolve(), "names a file outside the folder")


def test_shards(model):
    weights = load_file(model / "model.safetensors")
    before = load(model).hidden(["the film"])[0]
    (model / "model.safetensors").unlink()
    names = sorted(weights)
    shards = {"model-1.safetensors": names[::2], "model-2.safetensors": names[1::2]}
    for shard, some in shards.items():
        save_file({name: weights[name] for name in some}, model / shard)
    index = {"weight_map": {name: shard for shard, some in shards.items() for name in some}}
    (model / "model.safetensors.index.json").write_text(json.dumps(index))
    assert (load(model).hidden(["the film"])[0] == before).all()
    (model / "model-2.safetensors").unlink()
    refuses(model, "of the 2 files that the index names are not there: model-2.safetensors")


DISK_FULL = """
import resource, signal, sys
from pathlib import Path
from langue.errors import RunError
from tests.train.child import trainer
folder = Path(sys.argv[1])
run = trainer(folder)
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
resource.setrlimit(resource.RLIMIT_FSIZE, (int(sys.argv[2]), resource.RLIM_INFINITY))
try:
    run.run()
except RunError as error:
    print(error)
    sys.exit(error.exit_code)
"""


def test_a_disk_that_fills_during_a_checkpoint(tmp_path):
    """A real failing write: the kernel refuses files past a limit that lets the log through but not
    the weights."""
    done = forked.run_script(DISK_FULL, str(tmp_path), "60000")
    assert done.returncode == 2, done.stderr
    assert (
        "cannot be written" in done.stdout
        and "free space" in done.stdout
        and done.stdout.count("\n") == 1
    )
    assert not list(tmp_path.glob("checkpoints/*"))


def test_atomic_writes_leave_the_old_or_the_new(tmp_path):
    file = tmp_path / "a.json"
    file.write_text("old")
    with pytest.raises(ValueError), atomic_file(file) as temporary:
        temporary.write_text("half")
        raise ValueError
    assert file.read_text() == "old" and list(tmp_path.iterdir()) == [file]
    with atomic_folder(tmp_path / "b") as folder:
        (folder / "x").write_text("1")
    assert (tmp_path / "b" / "x").read_text() == "1"
    # the limit above was the child's
    assert resource.getrlimit(resource.RLIMIT_FSIZE)[0] == resource.RLIM_INFINITY
