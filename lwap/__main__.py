"""`python -m lwap`."""

from lwap.cli import main

if __name__ == "__main__":
    raise SystemExit(main())
