"""Compare langue and transformers' Seq2SeqTrainer on summarisation of dialogues, trained from
random weights for the same CPU minutes, beside the first sentences of the source.

Both sides train the same T5 shape, with the tokenizer that langue has trained on the training rows,
and the same truncation of sources and targets, learning rate, schedule, decay and batches, with one
thread. Each side first measures its own pace, which determines the number of steps for the given
minutes, so that both schedules finish; the cost of evaluations on dev is excluded. transformers'
side has the options that make it fastest here, and labels padded with -100. langue loads the
weights of both, and evaluates them on the same rows with the same code. The two processes run in
turn (benchmarks/task_sides.py).
"""

import json
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
import torch

from benchmarks import material, results
from benchmarks.finetune_peers import best_options
from benchmarks.machine import facts
from benchmarks.noise import others
from benchmarks.task_sides import (
    SKIP,
    TURN,
    answer_job,
    cpu_clock,
    draw,
    predictions,
    rows,
    take_slices,
    train_peer,
    training_options,
    write_rows,
)

SHARED = {"lr": 2e-3, "warmup": 0.1, "weight_decay": 0.01, "batch": 16, "max_length": 256}
COLUMNS = {"source": "text", "target": "summaries"}
MOST = {"train": 10**9, "dev": 200, "test": 300}
TRIAL = 24  # steps for measuring a side's pace, the first of which do not count
POINTS = 5  # number of evaluations on dev
SHOWN = 20  # number of texts in the results
SETTINGS = {
    "task.output": "summary",
    "task.max_new_tokens": 100,
    "task.dev_examples": 1,  # dev is evaluated by its loss; texts are only generated for test
    "model.preset": "t5-small",
    "model.size": "5M",
    "tokenizer.vocab_size": 4096,
    "data.max_length": SHARED["max_length"],
    "data.truncation": "head",
    "data.duplicates": False,
    "train.lr": SHARED["lr"],
    "train.warmup": SHARED["warmup"],
    "train.weight_decay": SHARED["weight_decay"],
    "train.batch_examples": SHARED["batch"],
    # large enough that batch_examples always limits the batch
    "train.batch_tokens": 2 * SHARED["batch"] * SHARED["max_length"],
    "train.best": "loss",
}


class Aside:
    """Replaces a method, and measures the CPU seconds of its calls."""

    def __init__(self, owner: Any, name: str) -> None:
        self.method = getattr(owner, name)
        self.seconds = 0.0
        setattr(owner, name, self)

    def __call__(self, *given: Any, **named: Any) -> Any:
        began = time.process_time()
        found = self.method(*given, **named)
        self.seconds += time.process_time() - began
        return found


def prepared_for(job: dict[str, Any], model: Path | None = None) -> Any:
    """Return what `langue finetune` prepares, for a new model with the tokenizer in the job's
    folder, or for a trained one.
    """
    from langue.runs.arguments import FINETUNE, resolve_call
    from langue.runs.prepare import prepare

    settings = job["settings"]
    if model is not None:
        of_new_models = ("model.", "tokenizer.")
        settings = {k: v for k, v in settings.items() if not k.startswith(of_new_models)}
    named = {"task": "seq2seq", "model": str(model) if model else None, "data": job["data"]}
    return prepare(resolve_call(FINETUNE, {}, named, settings), Path(job["folder"]))


def steps_within(job: dict[str, Any], pace: float, tokens: float) -> int:
    """Return the number of steps that fit into the minutes. pace: CPU seconds per token; tokens:
    per step.
    """
    steps = 60 * job["minutes"] / (pace * tokens)
    return POINTS * max(1, round(steps / POINTS))


def ours(job: dict[str, Any]) -> dict[str, Any]:
    from langue.runs.prepare import build
    from langue.train.trainer import Trainer

    torch.set_num_threads(1)
    prepared = prepared_for(job)

    def train(steps: int, dev: Any) -> tuple[float, Any, list[dict[str, Any]], Any]:
        network: Any = build(prepared)
        update = {"max_steps": steps, "epochs": float(steps), "checkpoint_every": steps}
        update["evaluate_every"] = max(1, steps // POINTS)
        settings = prepared.settings.train.model_copy(update=update)
        batches = prepared.task.batches(prepared.train, prepared.settings)
        with tempfile.TemporaryDirectory() as folder:
            trainer = Trainer(network, prepared.task, batches, dev, settings, Path(folder))
            began = time.process_time()
            progress = trainer.run()
            seconds = time.process_time() - began
            lines = Path(folder, "log.jsonl").read_text("utf-8").splitlines()
        return seconds, progress, [json.loads(line) for line in lines], network

    train(SKIP, None)
    seconds, progress, _, _ = train(TRIAL - SKIP, None)
    lengths = prepared.train.examples.lengths + prepared.train.decoder.lengths
    per_step = SHARED["batch"] * float(lengths.mean())
    evaluations = Aside(prepared.task, "evaluate")
    steps = steps_within(job, seconds / progress.tokens, per_step)
    seconds, progress, log, network = train(steps, prepared.dev)
    return {
        "steps": progress.step,
        "examples": progress.examples,
        "tokens": progress.tokens,
        "seconds": seconds - evaluations.seconds,
        "curve": [(line["examples"], line["loss"]) for line in log if line["split"] == "dev"],
        **judged(prepared, network),
    }


def hf(job: dict[str, Any]) -> dict[str, Any]:
    """Train transformers' summarisation by its recipe, from random weights."""
    from transformers import (
        AutoConfig,
        AutoModelForSeq2SeqLM,
        AutoTokenizer,
        DataCollatorForSeq2Seq,
        Seq2SeqTrainer,
        Seq2SeqTrainingArguments,
        set_seed,
    )

    from langue.runs.prepare import build

    torch.set_num_threads(1)
    tokenizer = AutoTokenizer.from_pretrained(job["begin"])
    examples = {split: encode(tokenizer, rows(job, split)) for split in ("train", "dev")}

    def train(steps: int, folder: str, evaluates: bool) -> tuple[Any, Any, list[int], float]:
        set_seed(0)
        model = AutoModelForSeq2SeqLM.from_config(AutoConfig.from_pretrained(job["begin"]))
        options = training_options(folder, job | {"epochs": 1}, SHARED)
        if evaluates:
            every = {"eval_steps": steps // POINTS, "save_steps": steps // POINTS}
            best = {"load_best_model_at_end": True, "metric_for_best_model": "eval_loss"}
            options |= {"eval_strategy": "steps", "save_strategy": "steps"} | every | best
            options |= {"save_only_model": True, "save_total_limit": 1}
        clock = cpu_clock()
        trainer: Any = Seq2SeqTrainer(
            model=model,
            args=Seq2SeqTrainingArguments(
                **options,
                max_steps=steps,
                per_device_eval_batch_size=SHARED["batch"],
                prediction_loss_only=True,
            ),
            train_dataset=examples["train"],
            eval_dataset=examples["dev"],
            data_collator=DataCollatorForSeq2Seq(tokenizer, model=model),
            processing_class=tokenizer,
            callbacks=[clock],
        )
        collate = trainer.data_collator
        counts: list[int] = []

        def counting(items: list[Any]) -> Any:
            if trainer.model.training:  # batches are collated in the order in which they are used
                counts.append(sum(_size(item) for item in items))
            return collate(items)

        trainer.data_collator = counting
        evaluations = Aside(trainer, "evaluate")
        seconds = train_peer(trainer) - evaluations.seconds
        return trainer, clock, counts[:steps], seconds

    with tempfile.TemporaryDirectory() as folder:
        _, clock, counts, _ = train(TRIAL, folder, False)
        pace = (clock.cpu[-1] - clock.cpu[SKIP - 1]) / sum(counts[SKIP:])
        per_step = SHARED["batch"] * float(np.mean([_size(each) for each in examples["train"]]))
        steps = steps_within(job, pace, per_step)
        trainer, _, counts, seconds = train(steps, folder, True)
        trained = Path(folder, "trained")
        trainer.model.save_pretrained(trained)
        tokenizer.save_pretrained(trained)
        prepared = prepared_for(job, trained)
        network = build(prepared)
    batch = SHARED["batch"]
    points = [each for each in trainer.state.log_history if "eval_loss" in each]
    return {
        "steps": trainer.state.global_step,
        "examples": batch * trainer.state.global_step,
        "tokens": sum(counts),
        "seconds": seconds,
        "curve": [(batch * each["step"], each["eval_loss"]) for each in points],
        **judged(prepared, network),
    }


def encode(tokenizer: Any, pairs: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Return the sources, and the first reference of each as labels, both truncated at the end. The
    new tokenizer does not add an end token, which labels need.
    """
    most = SHARED["max_length"]
    ids = tokenizer([row["source"] for row in pairs], truncation=True, max_length=most)["input_ids"]
    targets = [row["target"][0] for row in pairs]
    labels = tokenizer(text_target=targets, truncation=True, max_length=most - 1)["input_ids"]
    end = tokenizer.eos_token_id
    return [{"input_ids": i, "labels": [*n, end]} for i, n in zip(ids, labels, strict=True)]


def _size(example: dict[str, Any]) -> int:
    return len(example["input_ids"]) + len(example["labels"])


def judged(prepared: Any, network: Any) -> dict[str, Any]:
    """Return the loss on dev, and the metrics of the texts generated for test."""
    task = prepared.task
    kind = torch.float32
    loss = task.mean_loss(network, prepared.dev, torch.device("cpu"), kind)
    golds = prepared.encoded["test"].golds
    return {"loss": loss} | judged_texts(task, golds, predictions(prepared, network))


def judged_texts(task: Any, golds: Any, written: Any) -> dict[str, Any]:
    found = task.judge(golds, written)
    texts = [each.texts[0] for each in written]
    return {
        # 1: the same text for every source, which ROUGE does not reveal
        "different": len(set(texts)),
        "metrics": found.metrics,
        "intervals": found.intervals,
        "habits": found.settled["written"],
        "texts": texts,
    }


def baselines(prepared: Any) -> dict[str, dict[str, Any]]:
    """Evaluate on test the simple systems from which `langue finetune` selects its baseline."""
    from langue.tasks.seq2seq import simple_systems
    from langue.tasks.writing import Written

    golds = prepared.encoded["test"].golds
    sources = prepared.source.test.column("source")
    found = {}
    for name, make in simple_systems().items():
        written = [Written([make(source)], [0.0], source) for source in sources]
        found[name] = judged_texts(prepared.task, golds, written)
    return found


def write(data: Path, folder: Path, share: float) -> str:
    """Write the splits as JSON lines, which both sides read, and return their sizes."""
    from langue.text.read.source import read

    source = read(data, need=tuple(COLUMNS), columns=COLUMNS)
    assert source.train is not None
    order = np.random.default_rng(0).permutation(len(source.train))
    train = source.train.select(order[: max(1, round(share * len(order)))])
    tables = {"train": train, "dev": source.dev, "test": source.test}
    folder.mkdir()
    return ", ".join(
        write_rows(folder, name, draw(table, MOST[name]), tuple(COLUMNS))
        for name, table in tables.items()
    )


def run(data: Path | None, minutes: float, share: float, chosen: dict[str, Any]) -> None:
    """Run the comparison. minutes: CPU minutes of each side. share: fraction of the training rows
    to use. chosen: settings of both sides' model and texts, and of langue's training.
    """
    from langue.runs.prepare import build

    with tempfile.TemporaryDirectory() as temporary, others() as share_of_others:
        place = Path(temporary)
        sizes = write(data or material.data_folder() / "dialogsum", place / "data", share)
        job = {"data": str(place / "data"), "folder": str(place), "begin": str(place / "begin")}
        job |= {"minutes": minutes, "options": best_options(), "settings": SETTINGS | chosen}
        prepared = prepared_for(job)
        network = build(prepared)
        (place / "begin").mkdir()
        prepared.write(place / "begin", dict(network.named_parameters()))
        parameters = sum(each.numel() for each in network.parameters())
        simple = baselines(prepared)
        sides = {"langue": job, "transformers": job}
        answers = take_slices(__name__, sides, TURN)
    machine = facts()
    text = (
        f"{machine}\n\n### summaries: {sizes}, {minutes:g} minutes, {parameters:,} parameters,"
        f" batches of {SHARED['batch']}, rate {SHARED['lr']:g}\n\n"
    )
    text += table(simple | answers)
    text += f"\nothers took {share_of_others[0]:.0%} of the machine\n"
    print(text)
    for answer in (*simple.values(), *answers.values()):
        answer["texts"] = answer["texts"][:SHOWN]
    sources = list(prepared.source.test.column("source")[:SHOWN])
    golds = prepared.encoded["test"].golds[:SHOWN]
    content = {"machine": machine, "sizes": sizes, "simple": simple, "answers": answers}
    content |= {"sources": sources, "golds": golds}
    print(results.save("summary", content, text))


def table(sides: dict[str, dict[str, Any]]) -> str:
    """Return a Markdown table with a line per side, and below it the losses on dev during
    training.
    """
    lines = [
        "| side | steps | examples | tokens | dev loss | ROUGE-1 | ROUGE-2 | ROUGE-L |"
        " different texts | length | repeated | CPU s |",
        "|" + "---|" * 12,
    ]
    for name, each in sides.items():
        trained = ["", "", "", ""]
        if "steps" in each:
            trained = [f"{each[key]:,}" for key in ("steps", "examples", "tokens")]
            trained.append(f"{each['loss']:.3f}")
        scores = [f"{each['metrics'][key]:.2f}" for key in ("rouge1", "rouge2", "rougeL")]
        repeated = each["habits"]["repeated"] or 0
        habits = f"{each['different']} | {each['habits']['length_ratio']:.2f} | {repeated:.1%}"
        seconds = f"{each['seconds']:.0f}" if "seconds" in each else ""
        lines.append(f"| {' | '.join([name, *trained, *scores, habits, seconds])} |")
    lines.append("")
    for name, each in sides.items():
        if "curve" in each:
            points = ", ".join(f"{examples:,}: {loss:.3f}" for examples, loss in each["curve"])
            lines.append(f"dev loss of {name} after so many examples: {points}")
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    answer_job({"langue": ours, "transformers": hf})
