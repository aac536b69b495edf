"""Speed against peers: each row is a ratio to a peer that was timed in the same run."""
