"""What arrives: `python -m langue ...`, so that `torchrun -m langue ...` works. What leaves: the
command.
"""

from langue.cli import main

if __name__ == "__main__":
    main()
