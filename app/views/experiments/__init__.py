"""The page Experiments: the paper's tables and figures for any model."""
