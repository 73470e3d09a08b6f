"""The command line: arguments, exit codes and output."""
