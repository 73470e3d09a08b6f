"""Sockets, keys and flow control: bytes in, bytes out, and the right to send them."""
