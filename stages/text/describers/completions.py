"""A chat completion → the text of the answer, in each form in which endpoints send one."""

import re
from typing import Any

from pydantic import BaseModel, ConfigDict, Field, model_validator

from stages.text.describers.asking import Unanswered, spent_max_tokens

# Reasons of an answer that the model itself ended; null and an empty text say nothing.
_COMPLETE = {
    "", "stop", "stop_sequence", "end_turn", "eos", "eos_token", "complete", "completed", "done",
    "finished", "tool_calls", "tool_use", "function_call",
}  # fmt: skip
# Words in the reasons of an answer that reached the limit of its length, or that was withheld.
_CUT = re.compile("length|max|token")
_WITHHELD = re.compile("filter|safety|sensitive|policy|refus")
# Fields of a message in which servers put a model's reasoning.
_REASONING_FIELDS = ("reasoning_content", "reasoning", "thinking")


class _Part(BaseModel):
    type: str = "text"
    text: Any = None
    refusal: str | None = None

    @model_validator(mode="after")
    def _check_text(self) -> "_Part":
        if self.is_text and not isinstance(self.text, str):
            raise ValueError("a part of type text without a text")
        return self

    @property
    def is_text(self) -> bool:
        return self.type in ("text", "output_text")


class _Message(BaseModel):
    model_config = ConfigDict(extra="allow")

    content: str | _Part | list[str | _Part] | None = None
    refusal: str | None = None

    def parts(self) -> list[_Part]:
        """Return the content as parts."""
        found = self.content if isinstance(self.content, list) else [self.content or ""]
        return [_Part(text=part) if isinstance(part, str) else part for part in found]

    def describe_reasoning(self) -> str:
        """Return a remark on the reasoning that the message holds in place of an answer."""
        for name in _REASONING_FIELDS:
            if reasoning := (self.model_extra or {}).get(name):
                return (
                    f" ({len(str(reasoning))} characters came as {name}: switch the endpoint's "
                    "reasoning parser off)"
                )
        types = sorted({part.type for part in self.parts() if not part.is_text})
        return f" (only parts of the type {', '.join(types)})" if types else ""


class _Choice(BaseModel):
    message: _Message
    finish_reason: str | None = None


class Completion(BaseModel):
    """The body of a chat completion.

    Attributes
    ----------
    usage, model, system_fingerprint
        What the endpoint reports about the tokens and the model, in any form; None if nothing.
    """

    choices: list[_Choice] = Field(min_length=1)
    usage: Any = None
    model: Any = None
    system_fingerprint: Any = None

    def answer(self, max_tokens: int | None) -> str | Unanswered:
        """Return the text, unless the answer is refused, withheld, cut short or empty.

        The text is the content, or its parts of type text one after the other.

        Parameters
        ----------
        max_tokens
            The largest number of tokens that was asked for; None: no limit.
        """
        message, reason = self.choices[0].message, self.choices[0].finish_reason
        parts = message.parts()
        text = "".join(part.text for part in parts if part.is_text)
        end = (reason or "").casefold()
        if _WITHHELD.search(end):
            return Unanswered("the endpoint's content filter withheld the answer")
        if refusal := message.refusal or "".join(part.refusal or "" for part in parts):
            return Unanswered(f"the model declines to answer: {refusal}")
        complete = end in _COMPLETE
        if max_tokens is not None:
            # Without a reason, only the number of tokens shows a cut.
            cut = not complete and _CUT.search(end) if end else self._n_tokens() >= max_tokens
            if cut:
                return spent_max_tokens(text, max_tokens)
        if not complete:
            reason = f"the endpoint broke the answer off (finish_reason {reason})"
            return Unanswered(reason, text, ask_again=True)
        if not text.strip():
            reason = f"the answer is empty{message.describe_reasoning()}"
            return Unanswered(reason, ask_again=True)
        return text

    def _n_tokens(self) -> int:
        reported = self.usage.get("completion_tokens") if isinstance(self.usage, dict) else 0
        return reported if isinstance(reported, int) else 0
