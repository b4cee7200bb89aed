"""``python -m pruning``: the command line."""

from pruning.cli.main import main

raise SystemExit(main())
