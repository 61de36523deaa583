"""What a model's own config says of how it writes is kept to, as `transformers` keeps to it."""

import json

import pytest
import torch

from langue.verbs.model import load

transformers = pytest.importorskip("transformers")

from tests.contract.references import draw_model  # noqa: E402
from tests.contract.test_families import save  # noqa: E402

SOURCES = [[5, 9, 30, 41], [7, 7, 21], [11, 12, 13, 14, 15, 16]]


def theirs(model, rules):
    for source in SOURCES:
        ids = model.generate(torch.tensor([source]), max_new_tokens=8, num_beams=1, do_sample=False, **rules)[0]
        yield ids[1:].tolist()  # without the start token


@pytest.mark.parametrize("name", ["bart", "marian"])
@pytest.mark.parametrize("where", ["config", "generation"])
def test_banned_and_forced_tokens_are_those_of_the_config(tmp_path, name, where):
    reference = draw_model(name, 2, std=0.5)
    free = load(save(tmp_path / "free", reference)).generate(SOURCES, max_tokens=8)
    often = max({t for tokens in free for t in tokens}, key=lambda t: sum(tokens.count(t) for tokens in free))
    forced = next(t for t in range(20, 40) if t not in (often, free[0][0]))
    rules = {"bad_words_ids": [[often]], "suppress_tokens": [free[0][0]], "forced_bos_token_id": forced}
    rules |= {"eos_token_id": 2, "forced_eos_token_id": None}
    reference.generation_config.update(**rules)
    folder = save(tmp_path / "ruled", reference)
    if where == "config":  # as older folders have it
        (folder / "generation_config.json").unlink()
        config = json.loads((folder / "config.json").read_text())
        (folder / "config.json").write_text(json.dumps(config | rules))
    model = load(folder)
    ours = model.generate(SOURCES, max_tokens=8)
    for written, expected in zip(ours, theirs(reference, {}), strict=True):
        assert written == expected[: len(written)] and expected[len(written) :][:1] in ([], [2])
        assert written[0] == forced and often not in written
    model.save(tmp_path / "again")
    assert load(tmp_path / "again").generate(SOURCES, max_tokens=8) == ours
