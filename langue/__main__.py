"""Entry point of `python -m langue`, which also makes `torchrun -m langue ...` work."""

from langue.cli import main

if __name__ == "__main__":
    main()
