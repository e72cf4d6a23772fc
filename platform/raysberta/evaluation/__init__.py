"""mteb tasks, snapshots and scores."""
