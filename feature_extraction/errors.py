"""Errors that a user can act on. The command line prints their message as one line and exits with `exit_code`."""


class UserError(Exception):
    """Bad usage, configuration or input: the message names the bad value, what is allowed, and what to do next."""

    exit_code = 2


class PartialFailure(UserError):
    """The work is done except for some items, which the message (and `failures.jsonl`) names."""

    exit_code = 3


class RunFailure(UserError):
    """The work could not be done although usage and configuration were right."""

    exit_code = 1


def reason_of(error: BaseException, longest: int = 200) -> str:
    """What an error says, on one line, cut where it is long; its kind where it says nothing."""
    return " ".join(str(error).split())[:longest] or type(error).__name__
