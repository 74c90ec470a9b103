"""Many runs: what to train, running it, the journal it leaves and what is chosen from it."""
