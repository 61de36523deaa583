"""What text is: language, script, duplicates."""
