"""Plain data that passes between the stages; never imports torch."""
