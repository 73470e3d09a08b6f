"""The work of the commands check, doctor, drain, tail, top and demo."""
