"""One file per kind of corpus; a file that is dropped here is found."""
