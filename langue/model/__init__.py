"""The one Transformer, built of small bricks and chosen by a flat frozen config."""
