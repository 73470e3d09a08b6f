"""The values that users pass, checked and converted to plain bytes and numbers."""
