"""What a training will take: memory, time, the number of tokens."""
