"""Functions applied to a finished model: compile, recompute. The model never knows."""
