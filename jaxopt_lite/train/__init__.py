"""Training: tasks, states, steps, the order of the data, and the loop that yields the points of a run."""
