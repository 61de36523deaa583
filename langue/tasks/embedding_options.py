"""The settings of embeddings, and which losses learn from which rows."""

from typing import Literal

from pydantic import Field

from langue.settings.sections import Section

# what is known of the training rows, and the losses that learn from it, the usual one first
LOSSES = {
    "pairs with scores": ("cosine", "cosent"),
    "pairs without scores": ("in_batch",),
    "negatives": ("in_batch", "triplet"),
    "negatives with scores": ("margin_mse",),
}
COMPARE_ROWS = ("cosent", "in_batch")  # losses that compare the rows of a batch
NEED_NEGATIVES = ("triplet", "margin_mse")


class EmbedOptions(Section):
    loss: Literal["auto", "cosine", "cosent", "in_batch", "triplet", "margin_mse"] = Field(
        default="auto",
        description=(
            "cosine, cosent: of pairs with scores; in_batch: the other answers of a batch, and"
            " negatives, are what does not answer; triplet: of negatives; margin_mse: of negatives"
            " with scores of a teacher; auto: the first of these that the columns allow"
        ),
    )
    pooling: Literal["auto", "mean", "first", "last", "max", "mean_sqrt_len", "weightedmean"] = (
        Field(
            default="auto",
            description=(
                "how a text's hidden states become one vector; auto: as the model's folder says,"
                " else last for a causal decoder and mean for others"
            ),
        )
    )
    normalize: bool | None = Field(
        default=None,
        description=(
            "give vectors of length 1; None: as the folder of sentence-transformers says, of others"
            " yes unless the loss is margin_mse"
        ),
    )
    scale: float = Field(
        default=20.0, gt=0, description="what cosines are multiplied by in in_batch and cosent"
    )
    symmetric: bool = Field(
        default=False, description="in_batch: also find each answer's query among the queries"
    )
    margin: float = Field(
        default=0.5, gt=0, lt=2, description="triplet: by how much cosines are to differ"
    )
    matryoshka: tuple[int, ...] = Field(
        default=(),
        description="sizes that vectors may be cut to, which are trained beside the whole",
    )
    cached_tokens: int = Field(
        default=0,
        ge=0,
        description=(
            "tokens of a batch that are passed at a time, twice, with the same gradients: large"
            " batches of in_batch in little memory; 0: all at once"
        ),
    )
    score_max: float | None = Field(
        default=None,
        gt=0,
        description=(
            "what scores of pairs are divided by; None: the smallest of 1, 2, 3, 4, 5, 10 and 100"
            " that no training score is above"
        ),
    )
    query_prompt: str | None = Field(
        default=None,
        description="put before each text; None: the folder's, of pairs with scores its default",
    )
    document_prompt: str | None = Field(
        default=None,
        description="put before each pair and negative; None: as query_prompt",
    )
