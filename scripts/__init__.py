"""The commands: each module parses its arguments, calls the library, and prints."""
