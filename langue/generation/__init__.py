"""New text from a model: logits processors and sampling."""
