"""Adapters of one base behind one server: each a model of its own, and the base in memory once."""

import asyncio
import threading

import pytest

import langue
from langue.cli import run
from langue.runs.model import load
from langue.serve.metrics import Metrics
from langue.serve.models import Shelf, bytes_of, name_all
from tests.serve.serving import serving
from tests.tiny import reviews, write_jsonl
from tests.tiny_decoder import tiny_decoder

PROMPTS = ["the ball", "a bat in the", "others", "is the web"]
LENGTH = 12


@pytest.fixture(scope="module")
def folders(tmp_path_factory):
    """Two adapters that write, one that classifies, and their base."""
    folder = tmp_path_factory.mktemp("runs")
    base = tiny_decoder(folder / "base", "llama", max_position_embeddings=256)
    few = {"model.adapter": "lora", "train.max_steps": 6, "train.lr": 0.3}
    size = {"data.seq_len": 32, "train.batch_tokens": 256, "data.dev_fraction": 0.2}
    for name, text in (("ball", "the ball is in the web "), ("bats", "others hang there as bats ")):
        file = folder / f"{name}.txt"
        file.write_text("\n\n".join([text * 4] * 40), "utf-8")
        langue.pretrain(model=base, data=file, out=folder / name, **few, **size)
    rows = write_jsonl(folder / "rows.jsonl", reviews(24))
    words = ["--model", base, "--data", rows, "--out", folder / "labels", "model.adapter=lora"]
    more = ["train.epochs=1", "train.batch_examples=8"]
    assert run(["finetune", "--task", "classify", *map(str, words), *more]) == 0
    return [folder / name for name in ("base", "ball", "bats", "labels")]


def test_the_base_is_loaded_once_and_counted_once(folders) -> None:
    async def main():
        named, memory = name_all(list(map(str, folders)), 50_000_000)
        alone = [bytes_of([each]) - each.keys for each in named]
        sizes = [each.adapter for each in named]
        assert sizes[0] == 0 and min(sizes[1:]) > 0
        assert bytes_of(named) == alone[0] + sum(sizes) + sum(each.keys for each in named)
        assert bytes_of(named) <= memory
        shelf = Shelf(named, memory, 0, Metrics())
        await shelf.load_first()
        tables = {each.model.body.token.weight.data_ptr() for each in shelf.loaded.values()}
        assert len(shelf.loaded) == 4 and len(tables) == 1
        await shelf.close()

    asyncio.run(main())


def test_answers_of_adapters_are_those_of_each_alone(folders) -> None:
    """Whoever else is asked at the same time."""
    expected = {
        folder.name: load(folder, dtype="auto").generate(PROMPTS, LENGTH) for folder in folders[:3]
    }
    assert len(set(map(str, expected.values()))) == 3
    labels = load(folders[3], dtype="auto").predict(PROMPTS)
    found = []
    with serving(*folders, "--memory", "60MB") as server:

        def call(index):
            prompt = index % len(PROMPTS)
            if index % 4 == 3:
                fields = {"model": "labels", "input": PROMPTS[prompt]}
                answer = server.http.post("/v1/classify", json=fields).json()
                (told,) = answer["data"][0]["labels"]
                good = told["label"] == labels[prompt]["label"]
                found.append(good and abs(told["score"] - labels[prompt]["score"]) < 0.02)
                return
            name = folders[index % 4].name
            fields = {"model": name, "prompt": PROMPTS[prompt], "max_tokens": LENGTH}
            answer = server.http.post("/v1/completions", json=fields).json()
            found.append(answer["choices"][0]["text"] == expected[name][prompt])

        # prompts and models in all pairs, as the two do not go round together
        calls = [4 * (i % 12) + (i // 12) % 4 for i in range(48)]
        threads = [threading.Thread(target=call, args=(i // 4 * 5 + i % 4,)) for i in calls]
        for each in threads:
            each.start()
        for each in threads:
            each.join()
        assert [each.id for each in server.openai().models.list()] == [f.name for f in folders]
    assert len(found) == 48 and all(found)
