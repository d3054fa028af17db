"""What all cases share: the registry, a broker to test, processes with deadlines, fetched packages."""
