"""``python -m adaptbench`` is ``adaptbench``."""

from adaptbench.cli import main

if __name__ == "__main__":
    main()
