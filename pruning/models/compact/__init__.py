"""Reading Headroom's own format, in which blocks may differ in width."""
