"""What the commands do: check, doctor, drain, tail, top, demo."""
