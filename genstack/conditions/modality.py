"""Modalities of conditions: the prompts that people give, and words for the inputs of a sample."""

from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping, Sequence
from typing import TypeVar, final

from genstack.errors import UserError
from genstack.inputs import ConditionInputs, Prompts

Item = TypeVar("Item")


class PromptError(UserError):
    """A prompt that the prior does not read, or a missing one; `kind` is a key of `Prompts.kinds`."""

    def __init__(self, message: str, kind: str, missing: bool):
        super().__init__(message)
        self.kind, self.missing = kind, missing


class Modality(ABC):
    """Kind of input that a condition reads, as people see it."""

    #: Kind of prompt, a key of `Prompts.kinds`; "" for none.
    kind: str = ""

    @final
    def select(self, prompts: Prompts, count: int) -> ConditionInputs:
        """Choose inputs for `count` samples; prompts are cycled.

        Raises:
            PromptError: prompts of another kind, or none where the prior needs some.
            UserError: an invalid prompt.
        """
        for kind, given in prompts.kinds.items():
            if given and kind != self.kind:
                trained = f"on {self.kind}" if self.kind else "without a condition"
                raise PromptError(f"this prior was trained {trained} and does not read {kind}", kind, False)
        return self.read_prompts(prompts, count)

    @abstractmethod
    def read_prompts(self, prompts: Prompts, count: int) -> ConditionInputs:
        """Choose inputs from prompts of this kind, if there are any."""

    @abstractmethod
    def preview(self, held_out: ConditionInputs) -> ConditionInputs:
        """Choose inputs for the samples shown in training from the inputs of held-out images."""

    @abstractmethod
    def describe(self, inputs: ConditionInputs) -> Sequence[Mapping[str, str]]:
        """Describe the input of each image in words, by the name of its kind."""

    def unprompted(self, count: int, dropout: float) -> ConditionInputs:
        """Inputs without a prompt.

        Raises:
            PromptError: the prior never saw the null condition in training.
        """
        if dropout == 0:
            raise PromptError(
                f"this prior was trained without dropout and needs {self.kind}", self.kind, True
            )
        return ConditionInputs.nothing(count)


def cycle(prompts: Sequence[Item], count: int) -> Iterator[Item]:
    """Repeat prompts in order, `count` in all."""
    return (prompts[index % len(prompts)] for index in range(count))
