"""One file per family: how its config is read and written, and the rules between weight names."""
