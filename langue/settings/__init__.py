"""Settings: sections, recipes, and the names that other libraries have for them."""
