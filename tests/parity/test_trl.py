"""Training on dialogues and on preferences beside trl's trainers: the same labels token by token,
and the same losses step by step."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import transformers

from langue.runs.prepare import Finetuning, build
from langue.train.trainer import Trainer
from langue.verbs.preview import preview
from tests.tiny_decoder import tiny_decoder

trl = pytest.importorskip("trl")
datasets = pytest.importorskip("datasets")

STEPS = 20
BATCH = 4
SHARED: dict[str, Any] = {
    "train__lr": 1e-3,
    "train__schedule": "constant",
    "train__warmup": 0.0,
    "train__batch_examples": BATCH,
    "train__batch_tokens": 10**6,
    "train__max_steps": STEPS,
    "train__weight_decay": 0.0,
    "train__log_every": 1,
    "train__precision": "fp32",
    "data__duplicates": False,
}
WORDS = ["the", "film", "was", "a", "dull", "cold", "night", "with", "plot", "it", "bad", "good"]


TEMPLATE = (
    "{% for message in messages %}{{ '<' + message['role'] + '>' }}"
    "{% if message['role'] == 'assistant' %}"
    "{% generation %}{{ message['content'] + eos_token }}{% endgeneration %}"
    "{% else %}{{ message['content'] }}{% endif %}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<assistant>' }}{% endif %}"
)


@pytest.fixture
def model(tmp_path: Path) -> Path:
    folder = tmp_path / "llama"
    return tiny_decoder(folder, "llama, tied", max_position_embeddings=256, vocab_size=258)


def text(draw: np.random.Generator, most: int) -> str:
    return " ".join(draw.choice(WORDS, draw.integers(1, most)))


def pairs(count: int) -> list[dict[str, str]]:
    draw = np.random.default_rng(0)
    names = {"prompt": 8, "chosen": 6, "rejected": 6}
    rows = []
    while len(rows) < count:
        row = {name: " " + text(draw, most) for name, most in names.items()}
        if row["chosen"] != row["rejected"]:
            rows.append(row)
    return rows


def trained(prepared: Finetuning, folder: Path) -> list[float]:
    """The loss of each step of langue's trainer."""
    network = build(prepared)  # which measures the reference: before batches are planned
    batches = prepared.task.batches(prepared.train, prepared.settings)
    Trainer(network, prepared.task, batches, None, prepared.settings.train, folder).run()
    lines = [json.loads(line) for line in (folder / "log.jsonl").read_text("utf-8").splitlines()]
    return [line["loss"] for line in lines if line["split"] == "train"]


def in_order(prepared: Finetuning, rows: Sequence[Any]) -> list[Any]:
    """The rows as langue's first epoch takes them."""
    plan = prepared.task.batches(prepared.train, prepared.settings).plan(0)
    assert [len(batch) for batch in plan] == [BATCH] * STEPS
    return [rows[row] for batch in plan for row in batch.tolist()]


def theirs(trainer: Any, config: Any, model: Path, rows: list[Any], folder: Path, **more: Any):
    """trl's trainer over the rows in their order."""
    return trainer(
        model=transformers.AutoModelForCausalLM.from_pretrained(model),
        args=config(
            output_dir=str(folder / "trl"),
            per_device_train_batch_size=BATCH,
            max_steps=STEPS,
            learning_rate=SHARED["train__lr"],
            lr_scheduler_type="constant",
            weight_decay=0.0,
            logging_steps=1,
            report_to=[],
            use_cpu=True,
            bf16=False,
            disable_tqdm=True,
            train_sampling_strategy="sequential",
            save_strategy="no",
            max_length=256,
            gradient_checkpointing=False,
            **more,
        ),
        train_dataset=datasets.Dataset.from_list(rows),
        processing_class=transformers.AutoTokenizer.from_pretrained(model),
    )


def their_losses(trainer: Any) -> list[float]:
    trainer.train()
    return [line["loss"] for line in trainer.state.log_history if "loss" in line]


@pytest.mark.parametrize(
    ("ours", "named"),
    [
        ({"loss": "sigmoid"}, {"loss_type": ["sigmoid"]}),
        (
            {"loss": "robust", "label_smoothing": 0.1},
            {"loss_type": ["robust"], "label_smoothing": 0.1},
        ),
        ({"loss": "ipo"}, {"loss_type": ["ipo"]}),
        ({"loss": "hinge"}, {"loss_type": ["hinge"]}),
    ],
)
def test_dpo_has_the_losses_of_trl(model: Path, ours: Any, named: Any, tmp_path: Path) -> None:
    """20 steps of AdamW, within 1e-4."""
    rows = pairs(STEPS * BATCH)
    options = {f"task__{name}": value for name, value in ours.items()}
    data = {"train": rows, "dev": rows[:4]}
    prepared = preview("preference", model=model, data=data, task__beta=0.3, **SHARED, **options)
    assert isinstance(prepared, Finetuning)
    mine = trained(prepared, tmp_path)
    rows = in_order(prepared, rows)
    other = theirs(trl.DPOTrainer, trl.DPOConfig, model, rows, tmp_path, beta=0.3, **named)
    assert len(mine) == STEPS
    np.testing.assert_allclose(mine, their_losses(other), atol=1e-4, rtol=1e-4)


def test_chat_has_the_labels_and_losses_of_trl(model: Path, tmp_path: Path) -> None:
    """Several turns, a system prompt in half of them; labels token by token, losses to 1e-4."""
    draw = np.random.default_rng(1)
    rows = []
    for count in range(STEPS * BATCH):
        messages = [{"role": "system", "content": text(draw, 5)}] if count % 2 else []
        for _ in range(draw.integers(1, 4)):
            messages.append({"role": "user", "content": text(draw, 6)})
            messages.append({"role": "assistant", "content": text(draw, 6)})
        rows.append({"messages": messages})
    tokenizer = transformers.AutoTokenizer.from_pretrained(model)
    tokenizer.chat_template = TEMPLATE
    tokenizer.save_pretrained(model)
    data = {"train": rows, "dev": rows[:4]}
    prepared = preview("chat", model=model, data=data, data__max_length=256, **SHARED)
    assert isinstance(prepared, Finetuning)
    ordered = in_order(prepared, rows)
    other = theirs(
        trl.SFTTrainer, trl.SFTConfig, model, ordered, tmp_path, assistant_only_loss=True
    )
    mine = trained(prepared, tmp_path)
    examples = prepared.train.examples
    for row, theirs_row in zip(
        in_order(prepared, range(len(rows))), other.train_dataset, strict=True
    ):
        part = slice(examples.starts[row], examples.starts[row + 1])
        ids = theirs_row["input_ids"]
        assert examples.tokens[part].tolist() == ids[:-1]  # the last is not read
        labels = [-1 if label == -100 else label for label in theirs_row["labels"]]
        assert examples.labels[part].tolist() == labels[1:]
    np.testing.assert_allclose(mine, their_losses(other), atol=1e-4, rtol=1e-4)
