"""Plans a training run: memory, time, the number of tokens."""
