"""What arrives: a budget in floating-point operations. What leaves: the model size and the tokens
that use it best.

Training takes about C = 6 N D operations for N parameters and D tokens (Kaplan et al. 2020,
arXiv:2001.08361). Hoffmann et al. 2022 (arXiv:2203.15556) find that N and D should grow alike,
about 20 tokens a parameter (Chinchilla: 70 billion, 1.4 trillion), and fit the loss L = E + A /
N^alpha + B / D^beta. Their published numbers do not fit their own data; Besiroglu et al. 2024
(arXiv:2404.10102) fit it again. The loss is of their text and tokenizer: it compares plans, it does
not say what yours will be. Far below the models that it was fitted on it exceeds what guessing
costs, and says nothing.
"""

import math
from dataclasses import dataclass

TOKENS_A_PARAMETER = 20.0
# parameters of the models that the laws were fitted on (Hoffmann et al. 2022, table A9)
FITTED = (44e6, 16.2e9)


@dataclass(frozen=True)
class Law:
    """L = E + A / N^alpha + B / D^beta."""

    source: str
    e: float
    a: float
    b: float
    alpha: float
    beta: float

    def loss(self, parameters: float, tokens: float) -> float:
        """In nats a token."""
        return float(self.e + self.a / parameters**self.alpha + self.b / tokens**self.beta)

    def best(self, flops: float) -> tuple[float, float]:
        """Parameters and tokens of the lowest loss with 6 N D = flops (Hoffmann et al. 2022,
        equation 4).
        """
        g = (self.alpha * self.a / (self.beta * self.b)) ** (1 / (self.alpha + self.beta))
        parameters = g * (flops / 6) ** (self.beta / (self.alpha + self.beta))
        return parameters, flops / (6 * parameters)


HOFFMANN = Law(
    "Hoffmann et al. 2022, arXiv:2203.15556, equation 10", 1.69, 406.4, 410.7, 0.34, 0.28
)
BESIROGLU = Law("Besiroglu et al. 2024, arXiv:2404.10102", 1.8172, 482.01, 2085.43, 0.3478, 0.3658)


def by_rule(flops: float) -> tuple[float, float]:
    """Parameters and tokens with 20 tokens for each parameter."""
    parameters = (flops / (6 * TOKENS_A_PARAMETER)) ** 0.5
    return parameters, TOKENS_A_PARAMETER * parameters


def expected_loss(parameters: float, tokens: float, vocabulary: int) -> float | None:
    """What the last law expects, in nats a token; None where guessing among the vocabulary's tokens
    costs no more.
    """
    loss = BESIROGLU.loss(parameters, tokens)
    return loss if loss < math.log(vocabulary) else None


def optima(flops: float, vocabulary: int) -> list[dict[str, str | float | None]]:
    """What each of the three says, and the loss that the last law expects of it, as `expected_loss`
    has it.
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
