"""Properties of text: language, script, duplicates."""
