"""`python -m robustdistill`."""

from robustdistill.cli import main

main()
