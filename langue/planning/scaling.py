"""Compute-optimal model size and number of tokens for a budget of floating-point operations.

Training takes about C = 6 N D operations for N parameters and D tokens (Kaplan et al. 2020,
arXiv:2001.08361). Hoffmann et al. 2022 (arXiv:2203.15556) find that N and D should grow equally,
with about 20 tokens per parameter (Chinchilla: 70 billion, 1.4 trillion), and fit the loss L = E +
A / N^alpha + B / D^beta. Their published numbers do not fit their own data; Besiroglu et al. 2024
(arXiv:2404.10102) repeat the fit. The loss is that of their text and tokenizer: it is useful to
compare plans, and does not predict the loss on other text. Far below the sizes of the fitted models
it exceeds the loss of uniform guessing, and is meaningless.
"""

import math
from dataclasses import dataclass

TOKENS_A_PARAMETER = 20.0
# range of parameters of the fitted models (Hoffmann et al. 2022, table A9)
FITTED = (44e6, 16.2e9)


@dataclass(frozen=True)
class Law:
    """A scaling law L = E + A / N^alpha + B / D^beta."""

    source: str
    e: float
    a: float
    b: float
    alpha: float
    beta: float

    def loss(self, parameters: float, tokens: float) -> float:
        """Return the loss in nats per token."""
        return float(self.e + self.a / parameters**self.alpha + self.b / tokens**self.beta)

    def best(self, flops: float) -> tuple[float, float]:
        """Return the parameters and tokens with the lowest loss for 6 N D = flops (Hoffmann et al.
        2022, equation 4).
        """
        g = (self.alpha * self.a / (self.beta * self.b)) ** (1 / (self.alpha + self.beta))
        parameters = g * (flops / 6) ** (self.beta / (self.alpha + self.beta))
        return parameters, flops / (6 * parameters)


HOFFMANN = Law(
    "Hoffmann et al. 2022, arXiv:2203.15556, equation 10", 1.69, 406.4, 410.7, 0.34, 0.28
)
BESIROGLU = Law("Besiroglu et al. 2024, arXiv:2404.10102", 1.8172, 482.01, 2085.43, 0.3478, 0.3658)


def by_rule(flops: float) -> tuple[float, float]:
    """Return the parameters and tokens with 20 tokens per parameter."""
    parameters = (flops / (6 * TOKENS_A_PARAMETER)) ** 0.5
    return parameters, TOKENS_A_PARAMETER * parameters


def expected_loss(parameters: float, tokens: float, vocabulary: int) -> float | None:
    """Return the loss predicted by the last law, in nats per token; None if uniform guessing among
    the vocabulary's tokens is not worse.
    """
    loss = BESIROGLU.loss(parameters, tokens)
    return loss if loss < math.log(vocabulary) else None


def optima(flops: float, vocabulary: int) -> list[dict[str, str | float | None]]:
    """Return the optimum of the rule and of both laws, each with the loss that `expected_loss`
    predicts.
    """
    said = [("20 tokens a parameter, arXiv:2203.15556", by_rule(flops))]
    said += [(law.source, law.best(flops)) for law in (HOFFMANN, BESIROGLU)]
    return [
        {
            "law": name,
            "parameters": n,
            "tokens": d,
            "tokens_per_parameter": d / n,
            "loss": expected_loss(n, d, vocabulary),
        }
        for name, (n, d) in said
    ]
