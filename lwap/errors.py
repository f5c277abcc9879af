"""Errors that are meant to be read by the person at the keyboard.

Every message carries the offending value, what is accepted, and the next step. Pages and the
command line show these as text; any other exception is a bug and keeps its traceback.
"""

from enum import StrEnum
from typing import TypeVar

Choice = TypeVar("Choice", bound=StrEnum)


class LwapError(Exception):
    """Base of all errors that LWAP Explorer raises on purpose."""


class InputError(LwapError):
    """Sentences, pairs, or a data file that cannot be used as given."""


class ModelError(LwapError):
    """An encoder or model that cannot be found, loaded, or looked into layer by layer."""


class CheckpointError(ModelError):
    """A checkpoint folder that is incomplete, damaged, changed, or not trusted."""


class StrategyError(LwapError):
    """A pooling strategy that does not exist, or that this model or bank cannot give."""


class ConfigError(LwapError):
    """A setting outside its allowed values, or settings that contradict each other."""


def check_choice(name: str, value: str, choices: type[Choice]) -> Choice:
    """Return `value` as a member of `choices`.

    Raises:
        ConfigError: If it is none of them; the message lists them.
    """
    try:
        return choices(value)
    except ValueError as error:
        allowed = ", ".join(repr(str(choice)) for choice in choices)
        raise ConfigError(f"{name} is {value!r}; it must be one of {allowed}.") from error
