"""Compare langue with the libraries that its users would otherwise choose: quality on real data,
and the CPU seconds and memory of each.

embed: STS-B with the cosine loss, against sentence-transformers' trainer. adapter: IMDb with LoRA,
against PEFT in transformers' Trainer. chat: instructions with the loss on answers only, against
trl's SFTTrainer with packing. Both sides train the same model with the same learning rate,
schedule, decay, batches and epochs; the libraries have the options that make them fastest here. The
two processes run in turn (benchmarks/task_sides.py).
"""

import resource
import shutil
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks import material, results
from benchmarks.finetune_peers import best_options
from benchmarks.machine import facts
from benchmarks.noise import others
from benchmarks.task_sides import (
    TURN,
    answer_job,
    draw,
    predictions,
    rows,
    take_slices,
    train_langue,
    train_peer,
    training_arguments,
    training_options,
    without_lengths,
    write_rows,
)

EMBED = {"lr": 1e-4, "warmup": 0.1, "weight_decay": 0.01, "batch": 32, "max_length": 128}
ADAPTER = {"lr": 1e-3, "warmup": 0.1, "weight_decay": 0.01, "batch": 32, "max_length": 256}
CHAT = {"lr": 5e-4, "warmup": 0.1, "weight_decay": 0.01, "batch": 8, "max_length": 256}
RANK = 8
ALPHA = 16
HELD_OUT = 500  # number of training rows for evaluation if there is no test split
MOST = {"train": 10**9, "dev": 100, "test": 2000}
TARGETS = ("query", "value")
# the template of both sides; trl finds the assistant's text by the generation tags
TEMPLATE = (
    "{% for message in messages %}{{ message['role'] + ': ' }}"
    "{% if message['role'] == 'assistant' %}"
    "{% generation %}{{ message['content'] + eos_token }}{% endgeneration %}"
    "{% else %}{{ message['content'] + '\n' }}{% endif %}{% endfor %}"
    "{% if add_generation_prompt %}{{ 'assistant: ' }}{% endif %}"
)


# --- embeddings beside sentence-transformers ---


def embed(job: dict[str, Any]) -> dict[str, Any]:
    found = train_langue("embed", job, EMBED)
    vectors = np.asarray([each[:2] for each in found.pop("predictions")])  # (N, 2, D)
    found["quality"] = spearman(job, vectors[:, 0], vectors[:, 1])
    return found


def embed_peer(job: dict[str, Any]) -> dict[str, Any]:
    from datasets import Dataset
    from sentence_transformers import (
        SentenceTransformer,
        SentenceTransformerTrainer,
        SentenceTransformerTrainingArguments,
        losses,
    )

    model = SentenceTransformer(job["model"], device="cpu")
    model.max_seq_length = EMBED["max_length"]
    columns = [(row["text"], row["pair"], row["score"] / 5) for row in rows(job, "train")]
    names = ("sentence1", "sentence2", "score")
    dataset = Dataset.from_list([dict(zip(names, each, strict=True)) for each in columns])
    with tempfile.TemporaryDirectory() as folder:
        options = training_options(folder, job, EMBED)
        options["train_sampling_strategy"] = "random"  # this trainer cannot group by length
        trainer = SentenceTransformerTrainer(
            model=model,
            args=SentenceTransformerTrainingArguments(**options),
            train_dataset=dataset,
            loss=losses.CosineSimilarityLoss(model),
        )
        answer = timed(trainer)
    test = rows(job, "test")
    one = model.encode([row["text"] for row in test])
    other = model.encode([row["pair"] for row in test])
    return answer | {"quality": spearman(job, one, other)}


def spearman(job: dict[str, Any], one: Any, other: Any) -> float:
    from scipy.stats import spearmanr

    unit = [each / np.linalg.norm(each, axis=-1, keepdims=True) for each in (one, other)]
    cosines = (unit[0] * unit[1]).sum(-1)
    return float(100 * spearmanr(cosines, [row["score"] for row in rows(job, "test")])[0])


# --- LoRA beside PEFT ---


def adapter(job: dict[str, Any]) -> dict[str, Any]:
    def chosen(prepared: Any, network: Any) -> list[str]:
        scores = predictions(prepared, network)  # (N, labels)
        return [prepared.task.labels[place] for place in scores.argmax(-1)]

    found = train_langue("classify", job, ADAPTER, chosen)
    found["quality"] = accuracy(job, found.pop("predictions"))
    return found


def adapter_peer(job: dict[str, Any]) -> dict[str, Any]:
    import torch
    from peft import LoraConfig, get_peft_model
    from transformers import AutoModelForSequenceClassification, AutoTokenizer, Trainer

    tokenizer = AutoTokenizer.from_pretrained(job["model"])
    labels = sorted({row["label"] for row in rows(job, "train")})

    def encode(split: str) -> list[dict[str, Any]]:
        texts = [row["text"] for row in rows(job, split)]
        ids = tokenizer(texts, truncation=True, max_length=ADAPTER["max_length"])["input_ids"]
        targets = [labels.index(row["label"]) for row in rows(job, split)]
        return [{"input_ids": i, "labels": n} for i, n in zip(ids, targets, strict=True)]

    model = AutoModelForSequenceClassification.from_pretrained(job["model"], num_labels=len(labels))
    config = LoraConfig(task_type="SEQ_CLS", r=RANK, lora_alpha=ALPHA, target_modules=list(TARGETS))
    with tempfile.TemporaryDirectory() as folder:
        trainer: Any = Trainer(
            model=get_peft_model(model, config),
            args=training_arguments(folder, job, ADAPTER),
            train_dataset=encode("train"),
            processing_class=tokenizer,
        )
        answer = timed(trainer)
        with torch.no_grad():
            scores = trainer.predict(encode("test")).predictions
    chosen = [labels[place] for place in np.argmax(scores, axis=-1)]
    return answer | {"quality": accuracy(job, chosen)}


def accuracy(job: dict[str, Any], chosen: list[Any]) -> float:
    golds = [str(row["label"]) for row in rows(job, "test")]
    return float(100 * np.mean([str(a) == b for a, b in zip(chosen, golds, strict=True)]))


# --- instructions beside trl ---


def chat(job: dict[str, Any]) -> dict[str, Any]:
    def loss(prepared: Any, network: Any) -> float:
        import torch

        test = prepared.encoded["test"]
        kind = torch.float32
        found = prepared.task.mean_loss(network, test, torch.device("cpu"), kind)
        return float(found)

    found = train_langue("chat", job, CHAT, loss)
    found["quality"] = found.pop("predictions")
    return found


def chat_peer(job: dict[str, Any]) -> dict[str, Any]:
    import torch
    from datasets import Dataset
    from transformers import AutoModelForCausalLM, AutoTokenizer
    from trl import SFTConfig, SFTTrainer

    tokenizer = AutoTokenizer.from_pretrained(job["model"])
    with tempfile.TemporaryDirectory() as folder:
        options = training_options(folder, job, CHAT)
        options["train_sampling_strategy"] = "random"
        # packed sequences are told apart by their positions, which its eager attention uses
        config = SFTConfig(
            **options,
            max_length=CHAT["max_length"],
            packing=True,
            assistant_only_loss=True,
            gradient_checkpointing=False,
        )
        trainer = SFTTrainer(
            model=AutoModelForCausalLM.from_pretrained(job["model"]),
            args=config,
            train_dataset=Dataset.from_list(rows(job, "train")),
            processing_class=tokenizer,
        )
        answer = timed(trainer)
    total, count = 0.0, 0
    model = trainer.model.eval()
    for row in rows(job, "test"):
        found = tokenizer.apply_chat_template(
            row["messages"],
            return_dict=True,
            return_assistant_tokens_mask=True,
            return_tensors="pt",
            truncation=True,
            max_length=CHAT["max_length"] + 1,
        )
        ids = found["input_ids"]
        mask = torch.as_tensor(found["assistant_masks"]).reshape(-1)[1:].bool()
        with torch.no_grad():
            logits = model(input_ids=ids[:, :-1]).logits[0].float()  # (t, V)
        losses = torch.nn.functional.cross_entropy(logits, ids[0, 1:], reduction="none")
        total += float(losses[mask].sum())
        count += int(mask.sum())
    return answer | {"quality": total / count}


def timed(trainer: Any) -> dict[str, Any]:
    seconds = train_peer(trainer)
    memory = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return {"seconds": seconds, "memory": memory}


@dataclass(frozen=True)
class Pair:
    """A comparison: both sides, their data, and the measure of quality."""

    sides: dict[str, Callable[[dict[str, Any]], dict[str, Any]]]
    data: str  # folder below the data folder
    need: tuple[str, ...]
    quality: str
    shared: dict[str, Any]
    settings: dict[str, Any]


PAIRS = {
    "embed": Pair(
        {"langue": embed, "sentence-transformers": embed_peer},
        "stsb",
        ("text", "pair", "score"),
        "Spearman",
        EMBED,
        {"task.loss": "cosine"},
    ),
    "adapter": Pair(
        {"langue": adapter, "PEFT": adapter_peer},
        "imdb",
        ("text", "label"),
        "accuracy",
        ADAPTER,
        {
            "model.adapter": "lora",
            "model.lora_rank": RANK,
            "model.lora_alpha": ALPHA,
            "model.lora_targets": ",".join(TARGETS),
            "data.truncation": "head",
            "task.pooling": "first",
        },
    ),
    "chat": Pair(
        {"langue": chat, "trl": chat_peer},
        "instructions",
        ("messages",),
        "held-out loss",
        CHAT,
        {},
    ),
}


class Peers(dict[str, Any]):
    """The sides of the comparison that a job names, by their names."""

    def __missing__(self, name: str) -> Callable[[dict[str, Any]], dict[str, Any]]:
        return lambda job: PAIRS[job["what"]].sides[name](job)


def write(data: Path, folder: Path, pair: Pair, share: float) -> str:
    """Write the splits as JSON lines, which both sides read, and return their sizes."""
    from langue.text.read.source import read

    source = read(data, need=pair.need)
    order = np.random.default_rng(0).permutation(len(source.train))
    train = source.train.select(order[: max(1, round(share * len(order)))])
    tables = {"train": train, "dev": source.dev, "test": source.test}
    if source.test is None:
        tables["train"] = train.select(range(HELD_OUT, len(train)))
        tables["test"] = train.select(range(HELD_OUT))
    if source.dev is None:
        tables["dev"] = tables["test"]
    sizes = []
    for name, table in tables.items():
        sizes.append(write_rows(folder, name, draw(table, MOST[name]), pair.need))
    return ", ".join(sizes)


def with_template(model: Path, folder: Path) -> Path:
    """Return a copy of the model that has the template."""
    from transformers import AutoTokenizer

    shutil.copytree(model, folder)
    tokenizer = AutoTokenizer.from_pretrained(folder)
    tokenizer.chat_template = TEMPLATE
    tokenizer.save_pretrained(folder)
    return folder


def run(
    what: str, model: str | None, data: Path | None, epochs: float, share: float, chosen: Any
) -> None:
    """Run a comparison. share: fraction of the training rows to use. chosen: settings of langue's
    side.
    """
    pair = PAIRS[what]
    folder = material.model_folder(model)
    source = data or material.data_folder() / pair.data
    with tempfile.TemporaryDirectory() as temporary, others() as share_of_others:
        sizes = write(source, Path(temporary), pair, share)
        if what == "chat":
            folder = with_template(folder, Path(temporary, "model"))
        job = {"model": str(folder), "data": temporary, "epochs": epochs, "steps": -1}
        job["what"] = what
        jobs = {
            name: job | {"settings": pair.settings | chosen, "options": best_options()}
            for name in pair.sides
        }
        answers = take_slices(__name__, jobs, TURN)
    machine = facts()
    text = (
        f"{machine}\n\n### {what}: {sizes}, {epochs:g} epochs, batches of"
        f" {pair.shared['batch']}, rate {pair.shared['lr']:g}\n\n"
        f"| side | {pair.quality} | training, CPU s | peak memory, MB |\n|---|---|---|---|\n"
    )
    for name, each in answers.items():
        text += (
            f"| {name} | {each['quality']:.4f} | {each['seconds']:.1f} |"
            f" {each['memory'] / 1024:.0f} |\n"
        )
    ours, theirs = answers.values()
    text += (
        f"\nlangue is faster by {theirs['seconds'] / ours['seconds']:.2f}; others took"
        f" {share_of_others[0]:.0%} of the machine\n"
    )
    print(text)
    content = {"machine": machine, "answers": without_lengths(answers)}
    print(results.save(what, content, text))


if __name__ == "__main__":
    answer_job(Peers())
