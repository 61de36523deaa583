"""Prompting without training: takes a language model, prompts and possible answers; returns the
probability of each answer.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from langue.errors import ModelError
from langue.runs.inputs import listed
from langue.runs.likelihood import Likelihood, Likelihoods
from langue.wording import counted

Normalize = Literal["none", "tokens", "characters", "bytes"]
NORMALIZE = ("none", "tokens", "characters", "bytes")
NEUTRAL = ("N/A", "", "[MASK]")  # content-free texts (Zhao et al. 2021, section 5)
TEMPLATE = "This example is {}."  # default of the `transformers` pipeline
BETWEEN = "\n\n"  # separates examples and the question


def rank(
    likelihoods: Likelihoods,
    prompts: Any,
    choices: Any,
    normalize: Normalize,
    neutral: str | Sequence[str] | None,
    delimiter: str | None,
) -> list[Any]:
    """Rank choices, as `Model.rank` does."""
    alone = isinstance(prompts, str)
    items = [prompts] if alone else listed(prompts, "prompts", ids=False)
    several = _choices(choices, len(items), alone)
    if normalize not in NORMALIZE:
        raise ModelError(
            f"normalize = {normalize!r} is not known", do=f"use one of: {', '.join(NORMALIZE)}"
        )
    if delimiter is None:
        delimiter = " " if likelihoods.is_decoder else ""
    texts = [neutral] if isinstance(neutral, str) else list(neutral or ())
    pairs = []
    for prompt, those in zip(items, several, strict=True):
        asked = [_joined(prompt, choice, delimiter) for choice in those]
        pairs += asked
        for text in texts:  # the same continuations after each neutral text
            pairs += [_after_neutral(text, choice) for _, choice in asked]
    found = likelihoods.score(likelihoods.encode_pairs(pairs))
    _warn_of_cut(likelihoods)
    made = []
    begin = 0
    for those in several:
        size = len(those)
        blocks = []  # of the prompt, then of each neutral text
        for _ in range(len(texts) + 1):
            blocks.append(found[begin : begin + size])
            begin += size
        scores = probabilities(blocks[0], blocks[1:], those, normalize)
        made.append(_ranked(those, scores, blocks[0]))
    return made[0] if alone else made


def _choices(choices: Any, n: int, alone: bool) -> list[list[str]]:
    """Return the choices of each prompt."""
    items = listed(choices, "choices", ids=False)
    if items and all(isinstance(each, list | tuple) for each in items):
        if alone or len(items) != n:
            raise ModelError(
                f"{counted(len(items), 'list')} of choices and {counted(n, 'prompt')}",
                do="give one list for all, or one list a prompt",
            )
        several = [list(each) for each in items]
    else:
        several = [items] * n
    for those in several:
        if not those or not all(isinstance(each, str) and each for each in those):
            raise ModelError("choices are not texts, or there are none", do="give a list of texts")
    return several


def _joined(prompt: str, choice: str, delimiter: str) -> tuple[str, str]:
    """Return the prompt and its continuation, with the delimiter unless there already is
    whitespace.
    """
    parted = not prompt or prompt[-1].isspace() or choice[0].isspace()
    return prompt, choice if parted else delimiter + choice


def _after_neutral(text: str, choice: str) -> tuple[str, str]:
    return text.rstrip() if choice[0].isspace() else text, choice


def _warn_of_cut(likelihoods: Likelihoods) -> None:
    if likelihoods.n_cut:
        from langue.progress import warn

        warn(
            f"{likelihoods.n_cut:,} prompts with their answers are longer than"
            f" {likelihoods.longest:,} tokens and lost their beginning"
        )
        likelihoods.n_cut = likelihoods.tokens_cut = 0


def probabilities(
    found: Sequence[Likelihood],
    neutral: Sequence[Sequence[Likelihood]],
    choices: Sequence[str],
    normalize: Normalize,
) -> NDArray[np.float64]:
    """Return the probability (C,) of each choice among the given ones: the softmax of its
    log-likelihood, divided by its length if `normalize` asks for that.

    With neutral texts, each probability is divided by its mean after those, and all are
    renormalized: contextual calibration (Zhao et al. 2021, arXiv:2102.09690). With one neutral text
    and no length normalization, the order is that of pointwise mutual information (Holtzman et al.
    2021).
    """
    scores = _length_normalized(found, choices, normalize)
    if neutral:
        each = [_softmax(_length_normalized(after, choices, normalize)) for after in neutral]
        with np.errstate(divide="ignore"):
            scores = scores - np.log(np.mean(each, 0))
    return _softmax(scores)


def _length_normalized(
    found: Sequence[Likelihood], choices: Sequence[str], normalize: Normalize
) -> NDArray[np.float64]:
    sizes = {
        "none": [1 for _ in found],
        "tokens": [each.tokens for each in found],
        "characters": [len(choice) for choice in choices],
        "bytes": [len(choice.encode("utf-8", "surrogatepass")) for choice in choices],
    }[normalize]
    return np.asarray([each.logprob / size for each, size in zip(found, sizes, strict=True)])


def _softmax(scores: NDArray[np.float64]) -> NDArray[np.float64]:
    raised = np.exp(scores - scores.max())
    found: NDArray[np.float64] = raised / raised.sum()
    return found


def _ranked(
    choices: Sequence[str], scores: NDArray[np.float64], found: Sequence[Likelihood]
) -> list[dict[str, Any]]:
    order = np.argsort(-scores, kind="stable")
    return [
        {
            "choice": choices[i],
            "score": float(scores[i]),
            "logprob": found[i].logprob,
            "tokens": found[i].tokens,
        }
        for i in order
    ]


# --- labels of texts ---


@dataclass(frozen=True)
class Template:
    """The form of a text and its label in a prompt."""

    before: str  # up to the label, with {text} in place of the text
    after: str

    @classmethod
    def of(cls, given: str) -> "Template":
        """Parse a template; raise ModelError unless it has exactly one place for the label."""
        named = given.replace("{label}", "{}")
        if named.count("{}") != 1 or named.count("{text}") > 1:
            raise ModelError(
                f"the template {given!r} has no place for the label, or several",
                do='write {} once where the label goes, as "This example is {}."',
            )
        if "{text}" not in named:
            named = "{text}\n" + named
        before, after = named.split("{}")
        if "{text}" in after:
            raise ModelError(
                f"the template {given!r} has the text after the label",
                do="write {text} before the label",
            )
        return cls(before, after)

    def prompt(self, text: str) -> str:
        return self.before.replace("{text}", text)

    def whole(self, text: str, label: str) -> str:
        return self.prompt(text) + label + self.after


def zero_shot(
    model: Any,
    texts: Any,
    labels: Any,
    template: str,
    examples: Sequence[tuple[str, str]],
    multi_label: bool,
    normalize: Normalize,
    calibrate: bool,
) -> list[dict[str, Any]]:
    """Label texts without training, as `Model.zero_shot` does; model: a `Model`."""
    items, names = _check_labels(texts, labels)
    outputs: Sequence[str] = getattr(model.task, "labels", ())
    if not items:
        return []
    if entailment_of(outputs) is not None:
        if examples or calibrate or normalize != "none":
            raise ModelError(
                "examples, normalize and calibrate are for language models, and this model"
                " classifies",
                do="leave them out, or take a language model",
            )
        logits = model.logits(hypotheses(items, names, template))
        return by_entailment(logits, items, names, outputs, multi_label)
    if model.task is not None:
        raise ModelError(
            "the model's labels know no entailment, so it cannot tell labels that it was not"
            " trained on",
            where=str(model.checkpoint.folder),
            do="take a model trained on NLI, or a language model",
        )
    if multi_label:
        raise ModelError(
            "a language model gives one label a text",
            do="leave multi_label out, or take a model trained on NLI",
        )
    return by_likelihood(model.likelihoods, items, names, template, examples, normalize, calibrate)


def by_likelihood(
    likelihoods: Likelihoods,
    texts: Sequence[str],
    labels: Sequence[str],
    template: str,
    examples: Sequence[tuple[str, str]],
    normalize: Normalize,
    calibrate: bool,
) -> list[dict[str, Any]]:
    """Label texts by the likelihood of the labels under a language model; examples: (text, label)
    pairs shown before.
    """
    form = Template.of(template)
    shown = "".join(form.whole(text, label) + BETWEEN for text, label in examples)
    prompts = [shown + form.prompt(text) for text in texts]
    ends = [label + form.after for label in labels]
    neutral = [shown + form.prompt(text) for text in NEUTRAL] if calibrate else None
    ranked = rank(likelihoods, prompts, ends, normalize, neutral, "")
    label_of = dict(zip(ends, labels, strict=True))
    made = []
    for text, found in zip(texts, ranked, strict=True):
        names = [label_of[each["choice"]] for each in found]
        scores = [each["score"] for each in found]
        made.append({"sequence": text, "labels": names, "scores": scores})
    return made


def by_entailment(
    logits: NDArray[np.float32],
    texts: Sequence[str],
    labels: Sequence[str],
    names: Sequence[str],
    multi_label: bool,
) -> list[dict[str, Any]]:
    """Label texts by whether they entail "This example is LABEL.", as the `transformers` pipeline
    does (Yin et al. 2019).

    logits (texts * labels, outputs): of a classifier with these output names. multi_label: score
    each label on its own, entailment against contradiction.
    """
    yes = entailment_of(names)
    assert yes is not None
    no = next((i for i, name in enumerate(names) if name.lower().startswith("contradict")), None)
    if no is None:
        no = len(names) - 1 if yes == 0 else 0
    scores = logits.reshape(len(texts), len(labels), -1).astype(np.float64)  # (N, L, outputs)
    if multi_label or len(labels) == 1:
        found = 1 / (1 + np.exp(scores[..., no] - scores[..., yes]))  # (N, L)
    else:
        found = np.stack([_softmax(row) for row in scores[..., yes]])
    made = []
    for text, row in zip(texts, found, strict=True):
        order = np.argsort(-row, kind="stable")
        made.append(
            {
                "sequence": text,
                "labels": [labels[i] for i in order],
                "scores": [float(row[i]) for i in order],
            }
        )
    return made


def entailment_of(names: Sequence[str]) -> int | None:
    """Return the index of the entailment output, or None."""
    found = (i for i, name in enumerate(names) if name.lower().startswith("entail"))
    return next(found, None)


def hypotheses(texts: Sequence[str], labels: Sequence[str], template: str) -> list[tuple[str, str]]:
    """Return every pair of a text and a label's sentence."""
    if template.replace("{label}", "{}").count("{}") != 1 or "{text}" in template:
        raise ModelError(
            f"the template {template!r} is no sentence about a label",
            do='write {} once where the label goes, as "This example is {}."',
        )
    sentences = [template.replace("{label}", "{}").replace("{}", label) for label in labels]
    return [(text, sentence) for text in texts for sentence in sentences]


def _check_labels(texts: Any, labels: Any) -> tuple[list[str], list[str]]:
    """Return texts and labels as lists; raise ModelError if they are invalid."""
    items = listed(texts, ids=False)
    names = labels.split(",") if isinstance(labels, str) else listed(labels, "labels", ids=False)
    names = [name.strip() for name in names] if isinstance(labels, str) else names
    if not names or not all(isinstance(name, str) and name for name in names):
        raise ModelError("labels are not texts, or there are none", do="give a list of labels")
    if len(set(names)) < len(names):
        raise ModelError("a label is given twice", do="give each label once")
    if not all(isinstance(text, str) and text.strip() for text in items):
        raise ModelError("a text is empty, or is no text", do="leave it out")
    return items, names
