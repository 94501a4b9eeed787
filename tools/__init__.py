"""What builds, checks and ships the project; not part of the installed package."""
