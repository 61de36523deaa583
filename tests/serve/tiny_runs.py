"""A tiny run of each task that has a route of its own, and what they begin from."""

from langue.cli import run
from tests.tiny import reviews, tiny_bert, write_jsonl
from tests.tiny_kinds import tiny_model

TEXTS = ["a good film", "the plot was dull and the music was awful", "it was a long night"]
ONE = ["train.epochs=1", "train.batch_examples=8"]


def finetuned(folder, name, rows, task, base):
    data = write_jsonl(folder / f"{name}.jsonl", rows)
    out = folder / name
    words = ["finetune", "--task", task, "--model", str(base), "--data", str(data)]
    assert run([*words, "--out", str(out), *ONE]) == 0
    return out


def tiny_runs(folder):
    """Make them in a folder: bert, labels, tagger, answers, scores, nli and t5."""
    base = tiny_bert(folder / "bert")
    words = [{"tokens": text.split(), "tags": ["O"] * len(text.split())} for text in TEXTS * 4]
    for row in words:
        row["tags"][-1] = "B-END"
    asked = [
        {"question": "what was it", "context": text, "answers": [text.split()[-1]]}
        for text in TEXTS * 4
    ]
    scored = [
        {"text": row["text"], "pair": "a film", "score": index / 20}
        for index, row in enumerate(reviews(20))
    ]
    finetuned(folder, "labels", reviews(24), "classify", base)
    finetuned(folder, "tagger", words, "tag", base)
    finetuned(folder, "answers", asked, "extract", base)
    finetuned(folder, "scores", scored, "regress", base)
    pairs = [
        {"text": TEXTS[i % 3], "pair": f"it was {label}", "label": label}
        for i in range(4)
        for label in ("entailment", "neutral", "contradiction")
    ]
    finetuned(folder, "nli", pairs, "classify", base)
    tiny_model(folder / "t5", "t5")
    return folder
