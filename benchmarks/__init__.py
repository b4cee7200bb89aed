"""Measurements of speed and quality; every figure in the README comes from one of them."""

from pruning.utils.threads import wait_asleep

wait_asleep()  # as the app and the command line do
