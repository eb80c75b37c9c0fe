"""A small local page on which a picture is dropped and answered."""

from tutored.serve.run import is_loopback, serve

__all__ = ["is_loopback", "serve"]
