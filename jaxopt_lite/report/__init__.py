"""Reports: pictures of runs and sweeps, what a sweep found, and exports to other tools."""
