"""Settings: sections, recipes, search spaces, and the names that other libraries use for them."""
