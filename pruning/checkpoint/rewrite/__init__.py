"""Changes to a model or its config that a form of checkpoint needs."""
