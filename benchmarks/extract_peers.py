"""Compare langue and transformers on extractive question answering (SQuAD 1.1): exact match and F1
on the test questions, and the CPU seconds of training.

Both train the same encoder with the same learning rate, schedule, decay, batches and windows.
transformers follows its published recipe (run_qa.py): windows of 384 tokens with a stride of 128,
spans from the 20 best starts and ends, answers of at most 30 tokens; its Trainer has the options
that make it fastest here. The two processes run in turn (benchmarks/task_sides.py).
"""

import json
import tempfile
import time
from pathlib import Path
from typing import Any

from benchmarks import material, results
from benchmarks.finetune_peers import best_options
from benchmarks.machine import facts, floor_seconds, rates
from benchmarks.noise import others
from benchmarks.task_sides import (
    TURN,
    answer_job,
    cpu_clock,
    rows,
    take_slices,
    train_langue,
    train_peer,
    training_arguments,
    without_lengths,
)

SHARED = {"lr": 1e-4, "warmup": 0.1, "weight_decay": 0.01, "batch": 16, "max_length": 384}
STRIDE = 128
LONGEST = 30  # tokens of an answer
N_BEST = 20


def ours(job: dict[str, Any]) -> dict[str, Any]:
    found = train_langue("extract", job, SHARED)
    predictions = found.pop("predictions")
    found["answers"] = [each.spans[0].text if each.spans else "" for each in predictions]
    return found


def hf(job: dict[str, Any]) -> dict[str, Any]:
    """Train transformers' question answering by its recipe."""
    from transformers import (
        AutoModelForQuestionAnswering,
        AutoTokenizer,
        DataCollatorWithPadding,
        Trainer,
    )

    tokenizer = AutoTokenizer.from_pretrained(job["model"])

    def windows(questions: list[dict[str, Any]]) -> Any:
        return tokenizer(
            [row["question"] for row in questions],
            [row["context"] for row in questions],
            truncation="only_second",
            max_length=SHARED["max_length"],
            stride=STRIDE,
            return_overflowing_tokens=True,
            return_offsets_mapping=True,
        )

    train = rows(job, "train")
    found = windows(train)
    examples = []
    for place, offsets in enumerate(found["offset_mapping"]):
        row = train[found["overflow_to_sample_mapping"][place]]
        start, end = _target(row, offsets, found.sequence_ids(place))
        ids = {"input_ids": found["input_ids"][place]}
        ids["token_type_ids"] = found["token_type_ids"][place]
        examples.append(ids | {"start_positions": start, "end_positions": end})
    model = AutoModelForQuestionAnswering.from_pretrained(job["model"])
    with tempfile.TemporaryDirectory() as folder:
        trainer: Any = Trainer(
            model=model,
            args=training_arguments(folder, job, SHARED),
            train_dataset=examples,
            data_collator=DataCollatorWithPadding(tokenizer),
            processing_class=tokenizer,
            callbacks=[cpu_clock()],
        )
        seconds = train_peer(trainer)
        began = time.process_time()
        test = rows(job, "test")
        asked = windows(test)
        ids = [
            {"input_ids": tokens, "token_type_ids": types}
            for tokens, types in zip(asked["input_ids"], asked["token_type_ids"], strict=True)
        ]
        starts, ends = trainer.predict(ids).predictions
    answers = _answers(test, asked, starts, ends)
    return {"seconds": seconds, "judging": time.process_time() - began, "answers": answers}


def _target(row: dict[str, Any], offsets: Any, sides: Any) -> tuple[int, int]:
    """Return the first and last token of the answer in a window, or 0, 0 if the window does not
    contain it completely.
    """
    begin = row["answers"][0]["start"]
    end = begin + len(row["answers"][0]["text"])
    own = [place for place, side in enumerate(sides) if side == 1]
    if not (offsets[own[0]][0] <= begin and offsets[own[-1]][1] >= end):
        return 0, 0
    first = max(place for place in own if offsets[place][0] <= begin)
    last = min(place for place in own if offsets[place][1] >= end)
    return first, last


def _answers(questions: list[dict[str, Any]], asked: Any, starts: Any, ends: Any) -> list[str]:
    """Return the best span of each question over all its windows."""
    import numpy as np

    best: list[tuple[float, str]] = [(-np.inf, "")] * len(questions)
    for place, offsets in enumerate(asked["offset_mapping"]):
        row = asked["overflow_to_sample_mapping"][place]
        sides = asked.sequence_ids(place)
        inside = {index for index, side in enumerate(sides) if side == 1}
        size = len(sides)
        for first in np.argsort(-starts[place][:size])[:N_BEST].tolist():
            for last in np.argsort(-ends[place][:size])[:N_BEST].tolist():
                fits = first in inside and last in inside and first <= last < first + LONGEST
                score = float(starts[place][first] + ends[place][last])
                if fits and score > best[row][0]:
                    text = questions[row]["context"][offsets[first][0] : offsets[last][1]]
                    best[row] = score, text
    return [text for _, text in best]


PEERS = {"langue": ours, "hf": hf}


def run(
    model: str | None, data: Path, epochs: float, share: float, settings: dict[str, Any]
) -> None:
    """Run the comparison. share: fraction of the training questions to use. settings: langue's
    settings, on top of the shared ones.
    """
    from langue.hub.checkpoint import describe, read_checkpoint
    from langue.statistics.answers import score
    from langue.text.read.source import read

    folder = material.model_folder(model)
    config = read_checkpoint(describe(folder)).config
    machine = facts()
    measured = rates(config, time.process_time)
    source = read(data, need=("question", "context", "answers"), together="context")
    with tempfile.TemporaryDirectory() as temporary, others() as share_of_others:
        sizes = []
        for name in ("train", "dev", "test"):
            table = getattr(source, name)
            count = max(1, round(share * len(table))) if name == "train" else len(table)
            lines = [json.dumps(row) + "\n" for row in table.select(range(count)).rows]
            Path(temporary, f"{name}.jsonl").write_text("".join(lines), "utf-8")
            sizes.append(f"{name} {count:,}")
        job = {"model": str(folder), "data": temporary, "epochs": epochs, "steps": -1}
        own = {"task.stride": STRIDE, "task.max_answer_tokens": LONGEST} | settings
        jobs = {"langue": job | {"settings": own}, "hf": job | {"options": best_options()}}
        answers = take_slices(__name__, jobs, TURN)
        golds = [[each["text"] for each in row["answers"]] for row in rows(job, "test")]
    floor = epochs * floor_seconds(
        config, answers["langue"]["lengths"], measured["fp32"], training=True
    )
    text = (
        results.machine_text(machine, measured)
        + f"\n### extract, {data.name}: {', '.join(sizes)} questions, {epochs:g} epochs\n\n"
        "| side | exact match | F1 | training, CPU s | judging, CPU s |\n|---|---|---|---|---|\n"
    )
    for name, each in answers.items():
        found = score(golds, each["answers"])
        text += (
            f"| {name} | {100 * found.exact.mean():.2f} | {100 * found.f1.mean():.2f} |"
            f" {each['seconds']:.0f} | {each['judging']:.1f} |\n"
        )
    ratio = answers["hf"]["seconds"] / answers["langue"]["seconds"]
    text += (
        f"\nfloor: {floor:.0f} s; langue is faster by {ratio:.2f}; others took"
        f" {share_of_others[0]:.0%} of the machine\n"
    )
    print(text)
    content = {"machine": machine, "floor": floor, "answers": without_lengths(answers)}
    print(results.save("extract", content, text))


if __name__ == "__main__":
    answer_job(PEERS)
