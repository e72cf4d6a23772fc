"""Where artifacts lie: places, artifacts, leases."""
