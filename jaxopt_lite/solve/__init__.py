"""Problems, the loop that solves them, and derivatives of their solutions."""
