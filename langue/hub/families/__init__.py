"""One file a family: how its config reads, and rules between weight names."""
