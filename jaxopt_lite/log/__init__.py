"""What is said while a run goes on, and what is left of it as text."""
