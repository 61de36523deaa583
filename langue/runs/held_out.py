"""What arrives: held-out text, and how a language model predicts each of its documents. What
leaves: how far the figures may be from those of other text, and what a reader should know of them
first."""

import math
from typing import Any

from numpy.typing import NDArray

from langue.data.corpus.reader import Corpus
from langue.tasks.language import DocumentLosses, HeldOutSet, LanguageObjective
from langue.tasks.objective import Metrics

FEW = 20  # documents, below which drawing them anew says nothing
MOST = 20_000_000  # tokens of a corpus that are counted to know how much is unknown


def few_intervals(
    objective: LanguageObjective, held: HeldOutSet, judged: DocumentLosses
) -> dict[str, Any]:
    """95% intervals by Student's t over few documents, of the loss and of each share, as of a ratio
    of two sums (Cochran 1977, chapter 6); what follows from the loss lies where its ends put it.
    None where documents do not differ; nothing at all of a single one."""
    ratios = {name: ratio_interval(right, told) for name, (right, told) in judged.shares.items()}
    loss = ratio_interval(judged.losses, judged.counts)
    if loss is None:
        return {}
    loss = (max(0.0, loss[0]), loss[1])
    unknown: dict[str, float] = dict.fromkeys(ratios, 0.0)
    lower: Metrics = {"loss": loss[0], **objective.metrics(loss[0], held, unknown)}
    upper: Metrics = {"loss": loss[1], **objective.metrics(loss[1], held, unknown)}
    intervals: dict[str, Any] = {}
    for name in lower:
        if name not in ratios:
            intervals[name] = (lower[name], upper[name])
        elif (ends := ratios[name]) is not None:
            intervals[name] = (max(0.0, ends[0]), min(1.0, ends[1]))
        else:
            intervals[name] = None
    return intervals


def ratio_interval(sums: NDArray[Any], counts: NDArray[Any]) -> tuple[float, float] | None:
    """Where sum(sums) / sum(counts) lies with 95% confidence if documents, (n,), are drawn at
    random."""
    there = counts > 0
    sums = sums[there]
    counts = counts[there]
    number_of = len(counts)
    if number_of < 2:
        return None
    ratio = sums.sum() / counts.sum()
    residuals = sums - ratio * counts
    half = number_of * t_half_width(number_of) * residuals.std(ddof=1) / counts.sum()
    return (float(ratio - half), float(ratio + half)) if half > 0 else None


def t_half_width(documents: int) -> float:
    """Half of the 95% interval of a mean, in standard deviations between documents."""
    from scipy.special import stdtrit

    return float(stdtrit(documents - 1, 0.975)) / math.sqrt(documents)


def notes_on_held_out(train: int, held: int, remedy: str = "") -> list[str]:
    """What so few documents to judge on mean. train, held: how many there are. remedy: what goes
    before a setting that holds out FEW of them, where there are enough."""
    if held >= FEW:
        return []
    if held < 2:
        width = "how far the scores are from those on other text cannot be told"
    else:
        width = (
            f"the 95% interval of a score reaches {t_half_width(held):.2g} times the spread between"
            f" documents to either side (of {FEW}: {t_half_width(FEW):.2g} times)"
        )
    do = ""
    if remedy and train + held >= 2 * FEW:
        do = f"; {remedy} data.dev_fraction={1.1 * FEW / (train + held):.2g} holds out about {FEW}"
    if (train, held) == (1, 1):
        there = "there is a single document, whose end is held out to judge on"
    elif train:
        there = (
            f"only {held} of {train + held:,} documents {'is' if held == 1 else 'are'} held out to"
            " judge on"
        )
    else:
        there = (
            f"there {'is' if held == 1 else 'are'} only {held} document{'s' * (held > 1)} to"
            " judge on"
        )
    return [f"{there}: {width}{do}"]


def notes_on_text(text: Corpus, objective: LanguageObjective, which: str = "held-out") -> list[str]:
    """What a reader should know of the text that it was judged on."""
    if text.unknown is not None:
        unknown = text.unknown
        of = text.n_tokens
    elif objective.special.unk is not None:  # a corpus of before, in which they are counted now
        unknown, of = text.count(objective.special.unk, MOST)
    else:
        return []
    if not unknown and not text.lost_bytes:
        return []
    share = text.lost_bytes / max(1, text.n_bytes)
    said = f"{unknown / max(1, of):.1%} of the {which} tokens are the unknown one"
    if not unknown:
        said = (
            f"About {share:.1%} of the {which} text is of characters that the tokenizer leaves out"
        )
    said += (
        ". What is lost is never predicted, so that the perplexity is lower than that of a"
        " tokenizer that knows every text"
    )
    if text.lost_bytes:
        said += f"; bits per byte count each byte of it, about {share:.1%} of the text, as 8 bits"
    return [f"{said}."]
