"""What a job reports in one line: wrong input (exit code 2), and a stage that broke (exit code 1)."""


class InputError(Exception):
    """Bad input. The message is one line that names the key, file or row, and says what would be right."""


class StageFailed(Exception):
    """A stage raised; the message names its node and the cause."""
