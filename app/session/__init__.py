"""One visitor's state: draft, jobs, address, allowed paths; and where heads are drawn."""
