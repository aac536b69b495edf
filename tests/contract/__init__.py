"""Is it a good citizen? One table of all that is public, and the laws that each row of it must obey."""
