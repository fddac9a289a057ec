"""`python -m hbo.analysis.figures`."""

from hbo.analysis.figures.command import main

if __name__ == "__main__":
    main()
