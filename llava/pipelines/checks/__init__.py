"""Questions asked of a package and of a cluster before anything is started there."""
