"""The command line: arguments, exit codes and how answers look."""
