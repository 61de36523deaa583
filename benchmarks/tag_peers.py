"""Compare langue and transformers on token classification: entity F1 on the test sentences, and the
CPU seconds of training.

Both train the same encoder with the same learning rate, schedule, decay and batches of 32; the
first token of a word carries its tag, as in transformers' run_ner.py. transformers' Trainer has the
options that make it fastest here. The final weights of both are evaluated, with seqeval's two
interpretations of tags. The two processes run in turn (benchmarks/task_sides.py).
"""

import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from benchmarks import material, results
from benchmarks.finetune_peers import best_options
from benchmarks.machine import facts, floor_seconds, rates
from benchmarks.noise import others
from benchmarks.task_sides import (
    DEFAULT_STEPS,
    SKIP,
    TURN,
    answer_job,
    cpu_clock,
    rows,
    take_slices,
    train_langue,
    train_peer,
    training_arguments,
    without_lengths,
    write_rows,
)

SHARED = {"lr": 2e-4, "warmup": 0.1, "weight_decay": 0.01, "batch": 32, "max_length": 512}


def ours(job: dict[str, Any]) -> dict[str, Any]:
    found = train_langue("tag", job, SHARED)
    found["tags"] = [each.tags for each in found.pop("predictions")]
    return found


def hf(job: dict[str, Any]) -> dict[str, Any]:
    """Train transformers' token classification; `steps`: only time this many steps, otherwise also
    predict.
    """
    import numpy as np
    from transformers import (
        AutoModelForTokenClassification,
        AutoTokenizer,
        DataCollatorForTokenClassification,
        Trainer,
    )

    tokenizer = AutoTokenizer.from_pretrained(job["model"])
    train = rows(job, "train")
    names = sorted({tag for row in train for tag in row["tags"]})
    index = {name: place for place, name in enumerate(names)}

    def encode(row: dict[str, Any]) -> dict[str, Any]:
        found = tokenizer(
            row["tokens"],
            is_split_into_words=True,
            truncation=True,
            max_length=SHARED["max_length"],
        )
        before = [None, *found.word_ids()]
        labels = [
            -100 if word is None or word == last else index[row["tags"][word]]
            for word, last in zip(found.word_ids(), before, strict=False)
        ]
        return {"input_ids": found["input_ids"], "labels": labels}

    model = AutoModelForTokenClassification.from_pretrained(job["model"], num_labels=len(names))
    with tempfile.TemporaryDirectory() as folder:
        arguments = training_arguments(folder, job, SHARED)
        clock = cpu_clock()
        trainer: Any = Trainer(
            model=model,
            args=arguments,
            train_dataset=[encode(row) for row in train],
            data_collator=DataCollatorForTokenClassification(tokenizer),
            processing_class=tokenizer,
            callbacks=[clock],
        )
        seconds = train_peer(trainer)
        if job["steps"] > 0:
            spent = clock.cpu[-1] - clock.cpu[SKIP - 1]
            return {"seconds_a_step": spent / (len(clock.cpu) - SKIP)}
        began = time.process_time()
        test = [encode(row) for row in rows(job, "test")]
        scores = trainer.predict(test).predictions
    tags = []
    for row, score in zip(test, scores, strict=True):
        best = np.argmax(score, axis=1)
        tags.append([names[best[i]] for i, label in enumerate(row["labels"]) if label != -100])
    return {
        "seconds": seconds,
        "judging": time.process_time() - began,
        "steps": len(clock.cpu),
        "tags": tags,
    }


PEERS = {"langue": ours, "hf": hf}


def run(
    model: str | None, data: Path, epochs: float, share: float, settings: dict[str, Any]
) -> None:
    """Run the comparison. share: fraction of the training sentences to use. settings: langue's
    settings, on top of the shared ones.
    """
    from langue.hub.checkpoint import describe, read_checkpoint

    folder = material.model_folder(model)
    config = read_checkpoint(describe(folder)).config
    machine = facts()
    measured = rates(config, time.process_time)
    with tempfile.TemporaryDirectory() as temporary, others() as share_of_others:
        sizes = _write(data, Path(temporary), share)
        job = {"model": str(folder), "data": temporary, "epochs": epochs, "steps": -1}
        jobs = {
            "langue": job | {"settings": settings},
            "hf": job | {"options": best_options()},
        }
        answers = take_slices(__name__, jobs, TURN)
        plain = best_options() | {"train_sampling_strategy": "random"}
        timed = job | {"options": plain, "steps": DEFAULT_STEPS}
        alone = take_slices(__name__, {"hf": timed}, TURN)["hf"]
        golds = [row["tags"] for row in rows(job, "test")]
    floor = epochs * floor_seconds(
        config, answers["langue"]["lengths"], measured["fp32"], training=True
    )
    text = (
        results.machine_text(machine, measured)
        + "\n"
        + _table(answers, golds, floor, f"{sizes}, {epochs:g} epochs", share_of_others[0])
    )
    padded = alone["seconds_a_step"] * answers["hf"]["steps"]
    text += (
        f"\ntransformers with batches drawn at random (its default), {DEFAULT_STEPS} steps timed:"
        f" {padded:.0f} s for as many steps; langue is faster by"
        f" {padded / answers['langue']['seconds']:.2f}\n"
    )
    print(text)
    content = {"machine": machine, "rates": measured, "floor": floor}
    content["answers"] = without_lengths(answers)
    print(results.save("tag", content | {"default_batches": padded}, text))


def _write(data: Path, folder: Path, share: float) -> str:
    """Write the splits as JSON lines, which both sides read, and return their sizes."""
    from langue.text.read.source import read

    source = read(data, need=("tokens", "tags"))
    sizes = []
    for name in ("train", "dev", "test"):
        table = getattr(source, name)
        count = max(1, round(share * len(table))) if name == "train" else len(table)
        chosen = table.select(range(count))
        sizes.append(write_rows(folder, name, chosen, ("tokens", "tags")))
    return f"{data.name}: {', '.join(sizes)} sentences"


def _table(
    answers: dict[str, Any], golds: list[list[str]], floor: float, title: str, busy: float
) -> str:
    lines = [
        f"### tag, {title}, batches of {SHARED['batch']}, rate {SHARED['lr']:g}",
        "",
        "| side | F1 | F1, strict IOB2 | invalid tags | training, CPU s | share of the floor |"
        " judging, CPU s |",
        "|---|---|---|---|---|---|---|",
    ]
    for name, each in answers.items():
        loose, strict, invalid = scores(golds, each["tags"])
        lines.append(
            f"| {name} | {100 * loose:.2f} | {100 * strict:.2f} | {invalid} |"
            f" {each['seconds']:.0f} | {floor / each['seconds']:.0%} | {each['judging']:.1f} |"
        )
    ratio = answers["hf"]["seconds"] / answers["langue"]["seconds"]
    lines += [
        "",
        f"floor: {floor:.0f} s; langue is faster by {ratio:.2f}; others took {busy:.0%} of the"
        " machine",
    ]
    return "\n".join(lines) + "\n"


def scores(
    golds: Sequence[Sequence[str]], tags: Sequence[Sequence[str]]
) -> tuple[float, float, int]:
    """Return F1 by seqeval's default, F1 in its strict mode, and the number of tags that may not
    follow the one before them.
    """
    from langue.text.tags import IOB2, count_entities, entities_of, precision_recall_f1

    found = []
    for read in (entities_of, IOB2.read):
        counts = count_entities([read(each) for each in golds], [read(each) for each in tags])
        sides = (counts.right.sum(), counts.predicted.sum(), counts.true.sum())
        found.append(float(precision_recall_f1(*sides)["f1"]))
    invalid = sum(
        not IOB2.allows(before, after)
        for each in tags
        for before, after in zip(["O", *each], each, strict=False)
    )
    return found[0], found[1], invalid


if __name__ == "__main__":
    answer_job(PEERS)
