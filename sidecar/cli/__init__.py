"""The command line. Each verb is a module, and imports what it needs when it is called."""
