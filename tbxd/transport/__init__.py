"""Sockets, keys and flow control: bytes in, bytes out, and who may send them."""
