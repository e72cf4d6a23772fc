"""The one exception that means: the input is wrong, here is the line to read. Jobs print it and exit with code 2."""


class InputError(Exception):
    """Bad input. The message is one line that names the key, file or row, and says what would be right."""
