"""What makes the formulas fast; each is tested against its formula."""
