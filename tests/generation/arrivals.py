"""`python -m tests.generation.arrivals [10000 [KIND ...]]`: so many requests arrive at random
times, and each is answered as alone to the bit, for every kind of model and of weights.
"""

import random
import sys
import time
import warnings

from langue.generation.engine import Engine
from langue.generation.pages import CHUNK
from langue.model.weight_linear import with_weights
from tests.generation.test_engine import KINDS, answers_of, is_idle, make, random_requests

DISTINCT = 150
WEIGHTS = ("fp32", "bf16", "int8", "int4")


def arrivals(model, count, seed=0):
    """How many of so many answers differ from those alone."""
    requests = random_requests(DISTINCT, seed)
    alone = [answers_of(model, [request], {0: [0]})[0] for request in requests]
    draw = random.Random(seed)
    engine = Engine(model, rows=16, step_tokens=4 * CHUNK)
    asked = {}
    started = wrong = 0
    while started < count or engine.has_work:
        for _ in range(draw.choice((0, 0, 1, 2, 5)) if started < count else 0):
            row = draw.randrange(DISTINCT)
            asked[engine.submit(requests[row])] = row
            started += 1
        for delta in engine.step():
            if delta.finish_reason is None:
                continue
            answer = engine.collect(delta.id)
            found = (answer.tokens, answer.choices, answer.prompt_choices)
            wrong += found != alone[asked.pop(delta.id)]
    assert is_idle(engine)
    return wrong


def main():
    count = int(sys.argv[1]) if len(sys.argv) > 1 else 10_000
    warnings.simplefilter("ignore")
    total = 0
    kinds = sys.argv[2:] or KINDS
    for kind in kinds:
        for weights in WEIGHTS:
            began = time.perf_counter()
            wrong = arrivals(with_weights(make(kind), weights), count)
            total += wrong
            seconds = time.perf_counter() - began
            print(f"{kind}, {weights}: {wrong} of {count:,} differ, {seconds:.0f} s", flush=True)
    sys.exit(total > 0)


if __name__ == "__main__":
    main()
