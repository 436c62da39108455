"""The wire protocol, and every decision about it: bytes and times in, events and actions out.

Nothing in this package does I/O, reads a clock or imports an event loop.
"""
