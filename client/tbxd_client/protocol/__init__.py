"""The protocol of wire and journal: records, definitions, messages, and their limits."""
