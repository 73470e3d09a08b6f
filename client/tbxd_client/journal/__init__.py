"""The journal: a record is safe from here on."""
