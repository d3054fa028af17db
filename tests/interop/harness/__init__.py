"""Infrastructure of the cases: the registry, the broker under test, processes with deadlines, and downloaded packages."""
