"""What a plan needs to know of a model: forward pass, gradient pass, loss-curve pass."""

from pruning.measure.cache import cached_measurement, measurement_key
from pruning.measure.gradient_pass import with_gradients
from pruning.measure.forward_pass import measure

__all__ = ["cached_measurement", "measure", "measurement_key", "with_gradients"]
