"""The joint policy: who writes the next reply, the asker (BianQue-1.0) or the adviser (BianQue-2.0).

With `replies` the assistant's replies so far, greeting included, as in the original program:
1. more than `asking_limit` replies: the adviser;
2. exactly one reply, or the last reply is a question: the asker; its candidate is shown if it is a question and
   repeats no earlier reply word for word, else the adviser answers;
3. otherwise the adviser.

Departures from the original:
- the first message is answered. The original answers it with the greeting, whatever it says; here the greeting stands
  in the conversation from the start, and an empty `replies` (no greeting at all) is treated as one;
- "is a question" means a clinical question (`questions.is_clinical_question`), so closings such as 还有问题吗 and
  statements with 那么 or 什么 end the asking. The original's keyword list can be passed in its place;
- an emergency ends the asking;
- when the adviser steps in for the asker it gets the real prompt (see `service`), not the one escaped for T5.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

from bianque.consultation.messages import Author
from bianque.consultation.questions import is_clinical_question

QuestionTest = Callable[[str], bool]


def next_author(
    replies: Sequence[str],
    *,
    is_question: QuestionTest = is_clinical_question,
    asking_limit: int = 8,
    emergency: bool = False,
) -> Author:
    """Return who is to write the next reply; `Author.ASKER` only proposes one (`accept_question`).

    Args:
        replies: texts of the assistant's replies so far, oldest first, the greeting included.
        is_question: decides whether a reply is a question.
        asking_limit: the adviser writes once there are more replies than this; 0 never asks.
        emergency: whether a red flag is in force.
    """
    num_replies = max(len(replies), 1)
    if emergency or num_replies > asking_limit:
        return Author.ADVISER
    return Author.ASKER if num_replies == 1 or is_question(replies[-1]) else Author.ADVISER


def accept_question(
    candidate: str, replies: Sequence[str], *, is_question: QuestionTest = is_clinical_question
) -> bool:
    """Return whether the asker's candidate is shown: it is a question and no earlier reply word for word."""
    return is_question(candidate) and candidate not in replies
