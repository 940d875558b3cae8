"""The command line: one module per command; nothing heavy is imported at the top."""
