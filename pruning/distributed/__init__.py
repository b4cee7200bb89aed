"""Several processes that share the calibration windows of one model."""
