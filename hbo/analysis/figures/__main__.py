"""`python -m hbo.analysis.figures`."""

from hbo.analysis.figures.command import main

main()
