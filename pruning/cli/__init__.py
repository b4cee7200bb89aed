"""The command line: results on stdout, progress on stderr, one clear line on failure."""
