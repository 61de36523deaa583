"""Settings of text embeddings, and which losses can learn from which training rows."""

from typing import Literal

from pydantic import Field

from langue.settings.sections import Section

# kinds of training rows, and the losses that can learn from each, the default first
LOSSES = {
    "pairs with scores": ("cosine", "cosent"),
    "pairs without scores": ("in_batch",),
    "negatives": ("in_batch", "triplet"),
    "negatives with scores": ("margin_mse",),
}
COMPARE_ROWS = ("cosent", "in_batch")  # losses that compare the rows of a batch with each other
NEED_NEGATIVES = ("triplet", "margin_mse")


class EmbedOptions(Section):
    loss: Literal["auto", "cosine", "cosent", "in_batch", "triplet", "margin_mse"] = Field(
        default="auto",
        description=(
            "cosine, cosent: for pairs with scores; in_batch: the other answers of the"
            " batch, and given negatives, are wrong answers; triplet: for given"
            " negatives; margin_mse: for negatives with scores of a teacher; auto: the"
            " first of these that fits the columns"
        ),
    )
    pooling: Literal["auto", "mean", "first", "last", "max", "mean_sqrt_len", "weightedmean"] = (
        Field(
            default="auto",
            description=(
                "pooling of a text's hidden states; auto: as in the model's folder, else"
                " last for a causal decoder and mean for other models"
            ),
        )
    )
    normalize: bool | None = Field(
        default=None,
        description=(
            "scale vectors to length 1; none: as in the sentence-transformers folder,"
            " else yes unless the loss is margin_mse"
        ),
    )
    scale: float = Field(
        default=20.0, gt=0, description="factor of the cosines in in_batch and cosent"
    )
    symmetric: bool = Field(
        default=False, description="in_batch: also retrieve each answer's query among the queries"
    )
    margin: float = Field(
        default=0.5, gt=0, lt=2, description="triplet: the margin between the cosines"
    )
    matryoshka: tuple[int, ...] = Field(
        default=(),
        description="Matryoshka sizes: vectors may be truncated to these, which are trained"
        " together with the full size",
    )
    cached_tokens: int = Field(
        default=0,
        ge=0,
        description=(
            "GradCache: number of tokens of a batch that are computed at a time, in two"
            " passes with the same gradients, so that large in_batch batches fit in"
            " memory; 0: all at once"
        ),
    )
    score_max: float | None = Field(
        default=None,
        gt=0,
        description=(
            "what the scores of pairs are divided by; none: the smallest of 1, 2, 3, 4,"
            " 5, 10 and 100 that is no less than any training score"
        ),
    )
    query_prompt: str | None = Field(
        default=None,
        description="prompt before each text; none: the query prompt of the folder, or for"
        " pairs with scores its default prompt",
    )
    document_prompt: str | None = Field(
        default=None,
        description="prompt before each pair and negative; none: as query_prompt",
    )
