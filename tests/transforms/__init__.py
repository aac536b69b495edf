"""Is the rule right? By hand in two steps, by law, by limit; each hyperparameter at a value where it matters."""
