"""One visitor's state: draft, jobs, address, allowed paths."""
