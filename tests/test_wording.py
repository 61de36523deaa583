"""Counts and times as people say them."""

from langue.wording import counted, estimate, span


def test_one_and_many():
    assert counted(1, "document") == "1 document"
    assert counted(0, "document") == "0 documents" and counted(2000, "step") == "2,000 steps"
    assert counted(1, "query", "queries") == "1 query"
    assert counted(3, "query", "queries") == "3 queries"


def test_times():
    times = {
        0.0412: "0.041 seconds",
        0.25: "0.25 seconds",
        24.31: "24.3 seconds",
        119.7: "120 seconds",
        150: "2.5 minutes",
        50_000: "14 hours",
        2 * 86_400: "2 days",
    }
    assert {seconds: span(seconds) for seconds in times} == times
    estimates = {
        0.0412: "less than a second",
        1.3: "about 1 second",
        24.31: "about 24 seconds",
        7230: "about 2 hours",
    }
    assert {seconds: estimate(seconds) for seconds in estimates} == estimates
