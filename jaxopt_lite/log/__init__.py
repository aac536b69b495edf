"""Progress output while a run trains, and its text files."""
