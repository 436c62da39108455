"""The commands of the catalogue, one capability a module. Each offers `HANDLERS`."""
