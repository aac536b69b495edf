"""Values, and the transformations and schedules that are made of them."""
