"""Ray Tune over temperature and merge weight."""
