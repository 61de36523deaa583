"""Format numbers and durations for people."""

UNITS = {"days": 86_400.0, "hours": 3600.0, "minutes": 60.0}  # in seconds, the largest first


def counted(number: int, noun: str, plural: str = "") -> str:
    """Return a count with its noun: `1 document`, `2,000 documents`, `3 queries`."""
    return f"{number:,} {noun if number == 1 else plural or noun + 's'}"


def span(seconds: float) -> str:
    """Return a measured duration in the most suitable unit; seconds: its length."""
    for name, size in UNITS.items():
        if seconds >= 2 * size:
            times = seconds / size
            return f"{times:.2g} {name}" if times < 10 else f"{times:,.0f} {name}"
    return f"{seconds:.2g} seconds" if seconds < 1 else f"{seconds:.3g} seconds"


def estimate(seconds: float) -> str:
    """Return an estimated duration, such as `about 24 seconds`."""
    if seconds < 1:
        return "less than a second"
    if seconds < 2 * UNITS["minutes"]:
        return f"about {counted(round(seconds), 'second')}"
    return f"about {span(seconds)}"
