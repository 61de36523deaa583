"""A corpus as memory-mapped shards of tokens: built, divided, read and made into batches."""
