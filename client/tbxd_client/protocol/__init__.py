"""What goes over the wire and into the journal: records, definitions, messages, and their limits."""
