"""One file per family of models; a file that is dropped here is found."""
