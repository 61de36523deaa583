"""Counts and times as people say them."""

from langue.wording import counted, estimate, span


def test_one_and_many():
    assert counted(1, "document") == "1 document"
    assert counted(0, "document") == "0 documents" and counted(2000, "step") == "2,000 steps"
    assert counted(1, "query", "queries") == "1 query"
    assert counted(3, "query", "queries") == "3 queries"


def test_times():
    assert [span(each) for each in (0.0412, 24.31, 119, 121, 50_000)] == [
        "0.04 seconds",
        "24.3 seconds",
        "119 seconds",
        "2.0 minutes",
        "14 hours",
    ]
    assert [estimate(each) for each in (0.0412, 1.3, 24.31, 7230)] == [
        "less than a second",
        "about 1 second",
        "about 24 seconds",
        "about 2.0 hours",
    ]
