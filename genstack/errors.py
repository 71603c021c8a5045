"""The error that is a user's to mend."""


class UserError(ValueError):
    """What is wrong, where, the limit and the way out, in one line; the command line exits with 2."""
