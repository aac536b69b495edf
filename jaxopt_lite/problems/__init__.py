"""Problems whose solutions are known, to test and to compare methods with."""
