"""Evaluation by task files: takes a language model, a task file and rows; returns the metrics of
`lm-evaluation-harness`, from likelihoods or generated text.
"""

import json
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack
from itertools import chain
from pathlib import Path
from typing import IO, Any

from langue.errors import DataError, SettingsError
from langue.evaluation.answer_filters import filtered
from langue.evaluation.task_file import TaskFile, read_task_file
from langue.evaluation.task_prompts import Prompts, Question, Shots
from langue.evaluation.task_scores import (
    Values,
    has_no_gold,
    of_choices,
    of_continuation,
    of_whole,
    of_written,
    shown_names,
    summarise,
)
from langue.files import atomic_file
from langue.progress import bar
from langue.runs.likelihood import Likelihood, Likelihoods
from langue.runs.model import Model, load
from langue.runs.task_rows import TaskRows, task_rows
from langue.text.tokenizers.special import special_ids

CHUNK = 512  # rows whose requests are scored together
WRITTEN = 256  # prompts that are answered together
MOST_NEW = 256  # default maximum number of new tokens
ENDS = {"max_gen_toks", "max_new_tokens", "max_tokens", "max_completion_tokens"}
SAMPLING = ("temperature", "top_k", "top_p", "min_p", "repetition_penalty")
KNOWN = {"do_sample", "until", "num_beams", *ENDS, *SAMPLING}
TAKE_FIRST: list[dict[str, Any]] = [{"function": "take_first"}]


def evaluate_task_file(
    run: str | Path,
    task_file: str | Path,
    *,
    data: Any = None,
    columns: Mapping[str, str] | None = None,
    few_shot: int | None = None,
    limit: int | None = None,
    samples: str | Path | None = None,
) -> dict[str, Any]:
    """Return the metrics of a task file with standard errors and intervals, and how they were
    computed.

    data: replaces the data named in the file. columns: names in the file -> names in the data.
    few_shot: number of examples before each question. limit: number of rows to use. samples: file
    for the requests and answers of each row, one JSON object per line.
    """
    task = read_task_file(task_file)
    shots = task.num_fewshot if few_shot is None else few_shot
    if min(shots, 0 if limit is None else limit - 1) < 0:
        raise SettingsError(
            "few_shot is below 0, or limit below 1", do="give few_shot from 0 on, limit from 1 on"
        )
    rows = task_rows(task, data, columns or {}, limit, shots)
    model = load(run)
    judge = _Judge(model, task, rows, shots)
    began = time.perf_counter()
    with ExitStack() as opened:
        handle = None
        if samples is not None:
            temporary = opened.enter_context(atomic_file(Path(samples)))
            handle = opened.enter_context(temporary.open("w", encoding="utf-8"))
        values = judge.judged(handle)
    metrics, errors, intervals = summarise(task, values, shown_names(task))
    return {
        "task": task.task,
        "output_type": task.output_type,
        "split": rows.split,
        "examples": len(values),
        "metrics": metrics,
        "stderr": errors,
        "intervals": intervals,
        "baseline": None,
        **judge.how(),
        "notes": [*rows.notes, *judge.notes(values)],
        "seconds": round(time.perf_counter() - began, 3),
    }


class _Judge:
    """Runs a task's requests on a model."""

    def __init__(self, model: Model, task: TaskFile, rows: TaskRows, few_shot: int) -> None:
        self.model = model
        self.task = task
        self.rows = rows
        self.few_shot = few_shot
        self.names = shown_names(task)
        self.unconditional = any(m.name == "acc_mutual_info" for m in task.metrics)
        self.prompts = Prompts(task, rows.columns)
        self.likelihoods: Likelihoods = model.likelihoods
        if task.output_type == "generate_until":
            self.generation = _generation(task)

    def judged(self, handle: IO[str] | None) -> list[Values]:
        """Return the metric values of each row, in order."""
        ask: Callable[[list[Question]], Iterator[tuple[Values, dict[str, Any]]]] = {
            "multiple_choice": self._choose,
            "loglikelihood": self._continue,
            "loglikelihood_rolling": self._read,
            "generate_until": self._write,
        }[self.task.output_type]
        shots = Shots(self.task, self.rows.pool, self.few_shot, self.rows.same)
        size = WRITTEN if self.task.output_type == "generate_until" else CHUNK
        rows = self.rows.rows
        made: list[Values] = []
        with bar(self.task.task, len(rows)) as advance, self.model.inputs.counting_truncation():
            for begin in range(0, len(rows), size):
                part = rows[begin : begin + size]
                questions = [
                    self.prompts.question(row, shots.draw(row), self.unconditional) for row in part
                ]
                for question, (values, said) in zip(questions, ask(questions), strict=True):
                    made.append(values)
                    if handle is not None:
                        handle.write(self._line(question, values, said))
                advance(len(part))
        return made

    def _scored(self, asked: Sequence[tuple[Question, tuple[str, str]]]) -> list[Likelihood]:
        where = [question.row.where for question, _ in asked]
        pairs = [pair for _, pair in asked]
        return self.likelihoods.score(self.likelihoods.encode_pairs(pairs, where))

    def _choose(self, questions: list[Question]) -> Iterator[tuple[Values, dict[str, Any]]]:
        pairs = []
        for question in questions:
            own = (*question.requests, *question.without_context)
            pairs += [(question, pair) for pair in own]
        found = iter(self._scored(pairs))
        for question in questions:
            asked = [next(found) for _ in question.requests]
            alone = [next(found).logprob for _ in question.without_context]
            logprobs = [each.logprob for each in asked]
            values = of_choices(question, logprobs, [each.greedy for each in asked], alone)
            said = {"logprobs": logprobs, "answer": values["answer"]}
            yield values, said | ({"without_context": alone} if alone else {})

    def _continue(self, questions: list[Question]) -> Iterator[tuple[Values, dict[str, Any]]]:
        for each in self._scored([(question, question.requests[0]) for question in questions]):
            said = {"logprobs": [each.logprob], "greedy": each.greedy}
            yield of_continuation(each.logprob, each.greedy), said

    def _read(self, questions: list[Question]) -> Iterator[tuple[Values, dict[str, Any]]]:
        texts = [question.requests[0][1] for question in questions]
        windows = [self.likelihoods.windows(text) for text in texts]
        found = iter(self.likelihoods.score(list(chain.from_iterable(windows))))
        for text, part in zip(texts, windows, strict=True):
            total = sum(next(found).logprob for _ in part)
            yield of_whole(text, total), {"logprobs": [total], "windows": len(part)}

    def _write(self, questions: list[Question]) -> Iterator[tuple[Values, dict[str, Any]]]:
        most, stops, options = self.generation
        prompts = self._prompts([question.requests[0][0] for question in questions], most)
        n = self.task.repeats
        found = self.model.generate(prompts, most, stop=stops or None, n=n, **options)
        decode = self.model.tokenizer.target.decode
        for question, answers in zip(questions, found, strict=True):
            texts = [_until(decode(ids), stops) for ids in (answers if n > 1 else [answers])]
            yield self._of_texts(question, texts)

    def _of_texts(self, question: Question, texts: list[str]) -> tuple[Values, dict[str, Any]]:
        """Return the metric values of the answer of each filter."""
        values: Values = {}
        answers: dict[str, Any] = {}
        filters = self.task.filters
        steps = {"": TAKE_FIRST} if filters is None else {f.name: f.steps for f in filters}
        for filter_name, each in steps.items():
            answer = filtered(list(texts), each, question.row.values)[0]
            answers[filter_name] = answer
            for metric in self.task.metrics:
                shown = metric.name if len(steps) == 1 else f"{metric.name},{filter_name}"
                values[shown] = of_written(metric, answer, question.gold)
        said: dict[str, Any] = {"written": texts if self.task.repeats > 1 else texts[0]}
        return values, said | {
            "answer": answers if len(steps) > 1 else next(iter(answers.values()))
        }

    def _prompts(self, texts: list[str], most: int) -> list[list[int]]:
        """Return the token ids of prompts; if a prompt and its answer do not fit, the start of the
        prompt is truncated.
        """
        if not self.likelihoods.is_decoder:
            examples = self.model.inputs.examples(texts)
            bounds = examples.starts.tolist()
            return [
                examples.tokens[begin:end].tolist()
                for begin, end in zip(bounds, bounds[1:], strict=False)
            ]
        room = self.likelihoods.longest - most
        if room < 1:
            raise DataError(
                f"max_gen_toks = {most:,} leaves no room for a prompt, of"
                f" {self.likelihoods.longest:,} tokens",
                where=self.task.file,
                do="lower max_gen_toks",
            )
        ids = self.likelihoods.ids(texts)
        self.likelihoods.n_cut += sum(len(each) > room for each in ids)
        self.likelihoods.tokens_cut += sum(max(0, len(each) - room) for each in ids)
        return [each[-room:] or [self.likelihoods.prefix] for each in ids]

    def _line(
        self,
        question: Question,
        values: Values,
        said: Mapping[str, Any],
    ) -> str:
        means = [name for name, metric in self.names.items() if metric.aggregation == "mean"]
        scores = {name: values[name] for name in means}
        line = {
            "where": question.row.where,
            "doc": dict(question.row.values),
            "requests": question.requests,
            "gold": values.get("gold", question.gold),
            **said,
            **scores,
        }
        return json.dumps(line, ensure_ascii=False, default=str) + "\n"

    def how(self) -> dict[str, Any]:
        """Return what the numbers depend on besides the model and the rows."""
        found: dict[str, Any] = {
            "few_shot": self.few_shot,
            "max_length": self.likelihoods.longest,
            "dtype": str(self.model.dtype).removeprefix("torch."),
        }
        special = special_ids(self.model.tokenizer)
        token = special.bos if special.bos is not None else special.eos
        found["prefix_token"] = None if token is None else self.model.tokenizer.token(token)
        if self.task.output_type == "multiple_choice":
            found["target_delimiter"] = self.task.target_delimiter
        if self.task.output_type == "loglikelihood_rolling":
            found["stride"] = self.likelihoods.longest
        return found

    def notes(self, values: Sequence[Values]) -> list[str]:
        """Return notes to read before the numbers."""
        said = []
        if self.task.silent:
            said.append(f"read, and of no effect on the numbers: {', '.join(self.task.silent)}")
        if cut := self.likelihoods.n_cut:
            said.append(
                f"{cut:,} contexts do not fit into {self.likelihoods.longest:,} tokens and lost"
                f" their beginnings, {self.likelihoods.tokens_cut:,} tokens"
            )
        if missing := sum(has_no_gold(each) for each in values):
            said.append(
                f"of {missing:,} rows the right answer is none of the choices; they count as wrong"
            )
        return said


def _until(text: str, stops: Sequence[str]) -> str:
    """Return the text before the first stop string."""
    for stop in stops:
        text = text.split(stop)[0] if stop else text
    return text


def _generation(task: TaskFile) -> tuple[int, list[str], dict[str, Any]]:
    """Return the maximum number of new tokens, the stop strings, and options of
    `Model.generate`.
    """
    given = task.generation
    if wrong := [name for name in given if name not in KNOWN]:
        raise DataError(
            f"generation_kwargs: {wrong[0]} is not known",
            where=task.file,
            do=f"use {', '.join(sorted(KNOWN))}",
        )
    most = next((given[name] for name in sorted(ENDS) if name in given), MOST_NEW)
    stops = given.get("until", [task.fewshot.delimiter])
    stops = [stops] if isinstance(stops, str) else stops
    if type(most) is not int or most < 1 or not all(isinstance(each, str) for each in stops):
        raise DataError(
            "generation_kwargs: max_gen_toks is no number from 1 on, or until no list of texts",
            where=task.file,
            do='write max_gen_toks: 32, or another number, and until: ["."], or other texts',
        )
    options = {name: given[name] for name in SAMPLING if name in given}
    beams = given.get("num_beams", 1)
    if wrong := [name for name, value in options.items() if type(value) not in (int, float)]:
        raise DataError(
            f"generation_kwargs: {wrong[0]} is no number", where=task.file, do="write a number"
        )
    if type(beams) is not int or beams < 1:
        raise DataError(
            "generation_kwargs: num_beams is no number from 1 on", where=task.file, do="write 1"
        )
    if not given.get("do_sample", bool(given.get("temperature"))):
        options = {name: each for name, each in options.items() if name == "repetition_penalty"}
        options["temperature"] = 0.0
    return most, list(stops), options | {"beams": beams}
