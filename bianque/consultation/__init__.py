"""Turns of a conversation in, a streamed reply out: prompts, policy, red flags."""
